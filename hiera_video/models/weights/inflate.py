"""Image weights inflated for video, and position embeddings resized for other inputs."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.layout import HieraConfig

State = dict[str, Tensor]
Inflation = Literal["center", "mean"]
Grid = tuple[int, int, int]
"""Frames, rows and columns of a table of position embeddings."""

DECODER_PREFIXES = ("decoder_", "mask_token")


def inflate_image_weights(
    state: State, config: HieraConfig, inflation: Inflation = "center"
) -> State:
    """Convert an image model's weights for the video model `config`.

    An autoencoder's decoder is dropped: it predicts pixels in another order.

    Args:
        state: Weights of an image model.
        config: Configuration of the video model.
        inflation: "center" puts the patch kernel in the middle frame, with zeros around it and zero
            temporal positions, so a still video gives exactly the image model's features. "mean"
            divides the kernel over the frames, which deviates at the ends of the clip, where it
            meets zero padding.

    Returns:
        A new state dict.

    Raises:
        CheckpointError: If `inflation` is unknown.
    """
    if inflation not in ("center", "mean"):
        raise CheckpointError(f"inflation={inflation!r}: choose center or mean")
    state = {name: value for name, value in state.items() if not name.startswith(DECODER_PREFIXES)}
    frames = config.patch_kernel[0]
    kernel = rearrange(state["patch_embed.proj.weight"], "o c h w -> o c 1 h w")
    if inflation == "mean":
        kernel = kernel.expand(-1, -1, frames, -1, -1) / frames
    else:
        before = frames // 2
        kernel = F.pad(kernel, (0, 0, 0, 0, before, frames - 1 - before))
    state["patch_embed.proj.weight"] = kernel.contiguous()
    if "pos_embed" in state:
        space = state.pop("pos_embed")
        state["pos_embed_spatial"] = space
        state["pos_embed_temporal"] = space.new_zeros(1, config.token_grid[0], space.shape[-1])
    for name, value in list(state.items()):
        if name.startswith("multi_scale_fusion_heads.") and name.endswith("weight"):
            # units are one token deep in time
            state[name] = rearrange(value, "o c h w -> o c 1 h w")
    return state


def resize_position_embeddings(
    state: State, config: HieraConfig, source: str
) -> tuple[State, list[str]]:
    """Interpolate position embeddings to the grid of `config`: bicubic in space, linear in time.

    The source's grid is taken to be square, or to have the aspect ratio of `config`.

    Args:
        state: Weights of a model of the same kind (image or video).
        config: Configuration to resize for.
        source: Name of the weights in messages.

    Returns:
        A new state dict, and one note for each resized table.

    Raises:
        CheckpointError: If the source's grid cannot be inferred.
    """
    state, notes = dict(state), []
    tokens, frames = config.token_grid, config.token_grid[0]
    space_name = "pos_embed_spatial" if config.sep_pos_embed else "pos_embed"
    space, source_frames = state.get(space_name), frames
    if config.sep_pos_embed and "pos_embed_temporal" in state:
        temporal = state["pos_embed_temporal"]
        source_frames = temporal.shape[1]
        if source_frames != frames:
            state["pos_embed_temporal"] = resize_table(
                temporal, (source_frames, 1, 1), (frames, 1, 1)
            )
            notes.append(
                f"position embedding interpolated in time from {source_frames} to {frames}"
            )
    if space is None or (not config.sep_pos_embed and space.shape[1] == math.prod(tokens)):
        return state, notes
    target = (tokens[-2], tokens[-1])
    grid = _infer_grid(space.shape[1], target, source)
    if grid != target:
        state[space_name] = resize_table(space, (1, *grid), (1, *target))
        notes.append(
            f"position embedding interpolated in space from {grid[0]}x{grid[1]} to "
            f"{target[0]}x{target[1]}"
        )
    decoder = state.get("decoder_pos_embed")
    if decoder is not None and decoder.shape[1] != math.prod(config.final_grid):
        source_grid = (source_frames if config.sep_pos_embed else 1, *grid)
        resized = _resize_decoder_table(decoder, source_grid, config)
        if resized is not None:
            state["decoder_pos_embed"] = resized
            notes.append("decoder's position embedding interpolated")
    return state, notes


def _resize_decoder_table(table: Tensor, source_grid: Grid, config: HieraConfig) -> Tensor | None:
    """Resize the decoder's table, on the final grid, or return None if its size is unexpected."""
    pooled = [first // last for first, last in zip(config.token_grid, config.final_grid)]
    frames, rows, columns = source_grid
    old = (frames, rows // pooled[-2], columns // pooled[-1])
    if math.prod(old) != table.shape[1]:
        return None
    *time, new_rows, new_columns = config.final_grid
    return resize_table(table, old, (time[0] if time else 1, new_rows, new_columns))


def _infer_grid(places: int, target: tuple[int, int], source: str) -> tuple[int, int]:
    """Infer rows and columns of a table: the target's, a square, or the target's aspect ratio."""
    if places == math.prod(target):
        return target
    side = math.isqrt(places)
    if side * side == places:
        return side, side
    scale = math.sqrt(places / math.prod(target))
    grid = round(target[0] * scale), round(target[1] * scale)
    if math.prod(grid) != places:
        raise CheckpointError(
            f"{source}: cannot interpolate a position embedding of {places} places, which is "
            f"neither square nor of the model's aspect ratio {target[0]}x{target[1]}"
        )
    return grid


def resize_table(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """Interpolate a position embedding [1, t*h*w, C] from the grid `old` to the grid `new`."""
    t, h, w = old
    values = rearrange(table.detach().float(), "1 (t h w) c -> t c h w", t=t, h=h, w=w)
    if old[1:] != new[1:]:
        values = F.interpolate(values, size=new[1:], mode="bicubic", align_corners=False)
    if old[0] != new[0]:
        values = rearrange(values, "t c h w -> (h w) c t")
        values = F.interpolate(values, size=new[0], mode="linear", align_corners=False)
        values = rearrange(values, "(h w) c t -> t c h w", h=new[1], w=new[2])
    return rearrange(values, "t c h w -> 1 (t h w) c").to(table.dtype)
