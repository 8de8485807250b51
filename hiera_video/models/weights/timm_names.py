"""timm's image Hiera: its parameter names, layer scale and window position embeddings."""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.layout import HieraConfig

_HEAD = {"head.norm.": "norm.", "head.fc.": "head.projection."}
_SCALE = re.compile(r"(blocks\.\d+)\.ls([12])\.gamma")
_SCALED_LAYER = {"1": "attn.proj", "2": "mlp.fc2"}
_ARCHITECTURE = re.compile(r"hiera_(.+?)_(?:abswin_)?\d+")


def rename_from_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the authors' names for timm's head, and layer scale folded in.

    A layer's scale multiplies its output, so it is the same as scaled weights and biases. Names
    that timm shares with the authors, or that are not timm's, are kept.
    """
    renamed = {}
    for name, value in state.items():
        ours = next((to for prefix, to in _HEAD.items() if name.startswith(prefix)), None)
        renamed[name if ours is None else ours + name.rsplit(".", 1)[1]] = value
    for name, gamma in state.items():
        match = _SCALE.fullmatch(name)
        layer = f"{match[1]}.{_SCALED_LAYER[match[2]]}" if match else ""
        weight, bias = renamed.get(f"{layer}.weight"), renamed.get(f"{layer}.bias")
        if weight is None or bias is None:
            continue
        if weight.ndim == 2 and gamma.shape == bias.shape == weight.shape[:1]:
            renamed[f"{layer}.weight"] = weight * gamma.unsqueeze(1)
            renamed[f"{layer}.bias"] = bias * gamma
            del renamed[name]
    return renamed


def merge_window_positions(
    state: dict[str, Tensor], config: HieraConfig, source: str
) -> dict[str, Tensor]:
    """Replace timm's global and window position embeddings by their sum on the token grid.

    "abswin" models (arXiv 2311.05613) add one table [1, C, h, w] for each mask unit, repeated, to a
    global one, interpolated. Their sum for the grid of `config` is a position embedding [1, h*w,
    C], exact at every input size.

    Raises:
        CheckpointError: If the window is no mask unit of the model.
    """
    if "pos_embed_win" not in state or "pos_embed" not in state:
        return state
    state = dict(state)
    window, whole = state.pop("pos_embed_win"), state["pos_embed"]
    tiled = window.tile(config.unit_grid[-2:])
    size = tiled.shape[-2:]
    if size != config.token_grid[-2:] or window.shape[1] != whole.shape[1]:
        raise CheckpointError(
            f"{source}: pos_embed_win is {list(window.shape)}; the model's mask units have "
            f"{list(config.mask_unit_size[-2:])} tokens of {whole.shape[1]} channels"
        )
    resized = F.interpolate(whole.float(), size=size, mode="bicubic", antialias=True)
    table = resized + tiled.float()
    state["pos_embed"] = table.flatten(2).transpose(1, 2).to(whole.dtype)
    return state


def size_of_architecture(architecture: str) -> str | None:
    """Return the size in timm's name of a Hiera, or None for another model.

    >>> size_of_architecture("hiera_base_plus_224"), size_of_architecture("hiera_base_abswin_256")
    ('base_plus', 'base')
    """
    match = _ARCHITECTURE.fullmatch(architecture.partition(".")[0])
    return match[1] if match else None
