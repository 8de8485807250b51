"""Weights brought to a model's shape: wrappers' prefixes, position embeddings of other sizes, image weights for video.

Pure functions from state dict to state dict; files are `weights.py`'s matter."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hiera_video.errors import CheckpointError
from hiera_video.models.hiera import HieraEncoder
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import SIZES

State = dict[str, Tensor]
Inflation = Literal["center", "mean"]

_NESTED = ("model_state", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_CLASSIFIER = ("norm.", "head.")
_DECODER = ("decoder_", "mask_token")
_AUTOENCODER = ("encoder_norm.", "multi_scale_fusion_heads.", *_DECODER)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a load did to a model."""

    source: str
    """Where the weights came from."""
    loaded: tuple[str, ...]
    """Parameters that were read."""
    fresh: tuple[str, ...]
    """Parameters that the source does not have; they keep their initial values."""
    dropped: tuple[str, ...]
    """Tensors of the source that the model has no use for."""
    notes: tuple[str, ...]
    """What was changed on the way, in words."""


def unwrap(contents: Any, source: str) -> State:
    """The state dict inside a checkpoint: under `model_state` (the authors, PySlowFast), `state_dict` …, or bare; less
    the prefixes that DistributedDataParallel, torch.compile and Lightning modules put before every name."""
    for key in _NESTED:
        if isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping):
            contents = contents[key]
            break
    state = (
        {name: value for name, value in contents.items() if isinstance(value, Tensor)}
        if isinstance(contents, Mapping)
        else {}
    )
    if not state:
        raise CheckpointError(
            f"{source}: holds no weights; expected tensors by name, bare or under {', '.join(_NESTED)}"
        )
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def fit(
    state: State, model: HieraEncoder, source: str, inflation: Inflation = "center"
) -> tuple[State, LoadReport]:
    """What of `state` goes into `model`, shaped for it, and the account of it.

    Decoder and classifier give way to each other (pre-training to fine-tuning and back); a head of another class count
    stays fresh; position embeddings are interpolated; an image model's weights are inflated for video. Anything else
    that does not match by name and shape raises `CheckpointError`: a wrong network never loads in part."""
    config, notes = model.config, []
    if not any(name in state for name in _own_names(model)):
        raise CheckpointError(
            f"{source}: none of its {len(state)} tensors has a name of Hiera's; it is of another model"
        )
    _refuse_other_size(state, model, source)
    if state["patch_embed.proj.weight"].ndim < len(config.patch_kernel) + 2:
        state = inflate_image_weights(state, config, inflation)
        notes.append(f"image weights inflated in time ({inflation})")
    elif state["patch_embed.proj.weight"].ndim > len(config.patch_kernel) + 2:
        raise CheckpointError(
            f"{source}: holds a video model's weights, the model takes images; choose a …_16x224 name"
        )
    state, resized = resize_positions(state, config, source)
    notes += resized
    own = dict(model.named_parameters())
    head = state.get("head.projection.weight")
    if (
        head is not None
        and "head.projection.weight" in own
        and len(head) != len(own["head.projection.weight"])
    ):
        notes.append(
            f"head is fresh: the file has {len(head)} classes, the model {len(own['head.projection.weight'])}"
        )
        state = {name: value for name, value in state.items() if not name.startswith("head.")}
    chosen = {name: value for name, value in state.items() if name in own}
    for name, value in chosen.items():
        if value.shape != own[name].shape:
            raise CheckpointError(
                f"{source}: {name} is {list(value.shape)} there and {list(own[name].shape)} here; the checkpoint is of "
                f"another architecture{_guess(state)}"
            )
    fresh = tuple(name for name in own if name not in chosen)
    dropped = tuple(name for name in state if name not in own)
    _account(state, model, fresh, dropped, source)
    return chosen, LoadReport(
        source=source, loaded=tuple(chosen), fresh=fresh, dropped=dropped, notes=tuple(notes)
    )


def _own_names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def _refuse_other_size(state: State, model: HieraEncoder, source: str) -> None:
    """Depth and width first: their message is the one that helps."""
    weight = state.get("patch_embed.proj.weight")
    if weight is None:
        raise CheckpointError(
            f"{source}: has no patch_embed.proj.weight; the checkpoint is damaged or of another model"
        )
    depth = 1 + max(
        (int(match.group(1)) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))),
        default=-1,
    )
    config = model.config
    if (len(weight), depth) != (config.embed_dim, config.depth):
        raise CheckpointError(
            f"{source}: is {len(weight)} wide and {depth} blocks deep, the model {config.embed_dim} wide and "
            f"{config.depth} deep; the checkpoint is of another architecture{_guess(state)}"
        )


def _guess(state: State) -> str:
    width = len(state["patch_embed.proj.weight"])
    depth = 1 + max(
        (int(match.group(1)) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))),
        default=-1,
    )
    sizes = [
        size
        for size, shape in SIZES.items()
        if (shape["embed_dim"], sum(shape["stages"])) == (width, depth)
    ]
    return f" (it looks like hiera_{sizes[0]}_…)" if sizes else ""


def _account(
    state: State, model: HieraEncoder, fresh: tuple[str, ...], dropped: tuple[str, ...], source: str
) -> None:
    """Only whole parts may be missing or left over: the head, the classifier, the decoder; never a block."""
    is_autoencoder = isinstance(model, MaskedAutoencoderHiera)
    may_be_fresh: tuple[str, ...] = ("head.",)
    if is_autoencoder:
        has_fusion = "encoder_norm.weight" in state
        may_be_fresh = (
            _AUTOENCODER if not has_fusion else _DECODER if "mask_token" not in state else ()
        )
    elif "norm.weight" not in state:
        may_be_fresh = _CLASSIFIER
    missing = (
        [name for name in fresh if not name.startswith(may_be_fresh)]
        if may_be_fresh
        else list(fresh)
    )
    if missing:
        raise CheckpointError(
            f"{source}: lacks {_some(missing)}; the checkpoint is incomplete or of another architecture"
        )
    other = _CLASSIFIER if is_autoencoder else (*_AUTOENCODER, "head.")
    known = ("blocks.", "patch_embed.", "pos_embed", *_CLASSIFIER, *_AUTOENCODER)
    surplus = [name for name in dropped if name.startswith(known) and not name.startswith(other)]
    if surplus:
        raise CheckpointError(
            f"{source}: also holds {_some(surplus)}; the checkpoint is of another architecture"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def inflate_image_weights(
    state: State, config: HieraConfig, inflation: Inflation = "center"
) -> State:
    """An image model's weights for the video model `config`.

    "center": the kernel in the middle frame, zeros around it, and a zero position in time; a still video then gives
    exactly the image model's features. "mean": the kernel spread over the frames, which is off at the clip's ends,
    where it meets zero padding. An autoencoder's decoder is left behind: it predicts pixels in another order."""
    if inflation not in ("center", "mean"):
        raise CheckpointError(f"inflation={inflation!r}: choose center or mean")
    state = {name: value for name, value in state.items() if not name.startswith(_DECODER)}
    frames = config.patch_kernel[0]
    kernel = state["patch_embed.proj.weight"].unsqueeze(2)
    if inflation == "mean":
        kernel = kernel.expand(-1, -1, frames, -1, -1) / frames
    else:
        before = frames // 2
        kernel = F.pad(kernel, (0, 0, 0, 0, before, frames - 1 - before))
    state["patch_embed.proj.weight"] = kernel.contiguous()
    if "pos_embed" in state:
        position = state.pop("pos_embed")
        state["pos_embed_spatial"] = position
        state["pos_embed_temporal"] = position.new_zeros(
            1, config.token_grid[0], position.shape[-1]
        )
    for name, value in list(state.items()):
        if name.startswith("multi_scale_fusion_heads.") and name.endswith("weight"):
            state[name] = value.unsqueeze(2)  # units are one token deep in time
    return state


def resize_positions(state: State, config: HieraConfig, source: str) -> tuple[State, list[str]]:
    """Position embeddings interpolated to the model's grid: bicubic in space, linear in time. Space is taken as
    square, or as having the model's own aspect."""
    state, notes = dict(state), []
    tokens, time = config.token_grid, config.token_grid[0]
    space_name = "pos_embed_spatial" if config.sep_pos_embed else "pos_embed"
    space, source_time = state.get(space_name), time
    if config.sep_pos_embed and "pos_embed_temporal" in state:
        source_time = state["pos_embed_temporal"].shape[1]
        if source_time != time:
            old = state["pos_embed_temporal"]
            state["pos_embed_temporal"] = resize_table(old, (source_time, 1, 1), (time, 1, 1))
            notes.append(f"position embedding interpolated in time from {source_time} to {time}")
    if space is None or (not config.sep_pos_embed and space.shape[1] == math.prod(tokens)):
        return state, notes
    target = (tokens[-2], tokens[-1])
    grid = _source_grid(space.shape[1], target, source)
    if grid != target:
        state[space_name] = resize_table(space, (1, *grid), (1, *target))
        notes.append(
            f"position embedding interpolated in space from {grid[0]}x{grid[1]} to {target[0]}x{target[1]}"
        )
    decoder = state.get("decoder_pos_embed")
    if decoder is not None and decoder.shape[1] != math.prod(config.final_grid):
        shrink = [first // last for first, last in zip(tokens, config.final_grid)]
        old_grid = (
            source_time if config.sep_pos_embed else 1,
            grid[0] // shrink[-2],
            grid[1] // shrink[-1],
        )
        new_grid = (*config.final_grid,) if len(config.final_grid) == 3 else (1, *config.final_grid)
        if math.prod(old_grid) == decoder.shape[1]:
            state["decoder_pos_embed"] = resize_table(
                decoder, old_grid, (new_grid[0], new_grid[1], new_grid[2])
            )
            notes.append("decoder's position embedding interpolated")
    return state, notes


def _source_grid(places: int, target: tuple[int, int], source: str) -> tuple[int, int]:
    if places == math.prod(target):
        return target
    side = math.isqrt(places)
    if side * side == places:
        return side, side
    scale = math.sqrt(places / math.prod(target))
    grid = round(target[0] * scale), round(target[1] * scale)
    if math.prod(grid) != places:
        raise CheckpointError(
            f"{source}: a position embedding of {places} places is neither square nor of the model's aspect "
            f"{target[0]}x{target[1]}, so it cannot be interpolated"
        )
    return grid


def resize_table(table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int]) -> Tensor:
    """A learned table [1, t*h*w, C] of the grid `old` (t, h, w), interpolated to the grid `new`."""
    values = table.detach().float().view(*old, -1).permute(0, 3, 1, 2)  # t c h w
    if old[1:] != new[1:]:
        values = F.interpolate(values, size=new[1:], mode="bicubic", align_corners=False)
    if old[0] != new[0]:
        values = values.permute(2, 3, 1, 0).flatten(0, 1)  # (h w) c t
        values = F.interpolate(values, size=new[0], mode="linear", align_corners=False)
        values = values.view(new[1], new[2], -1, new[0]).permute(3, 2, 0, 1)
    return values.permute(0, 2, 3, 1).reshape(1, math.prod(new), -1).to(table.dtype)


@torch.no_grad()
def copy_into(model: nn.Module, chosen: State) -> None:
    """Write tensors into the parameters of the same names."""
    own = dict(model.named_parameters())
    for name, value in chosen.items():
        own[name].copy_(value)
