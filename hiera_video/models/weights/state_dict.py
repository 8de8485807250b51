"""The state dict inside a checkpoint, in the authors' names whoever wrote it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.mvit.names import rename_from_mvit
from hiera_video.models.vit.names import rename_from_mae_st, rename_from_videomae
from hiera_video.models.weights.heads import rename_from_mmaction
from hiera_video.models.weights.inflate import State
from hiera_video.models.weights.timm_names import rename_from_timm
from hiera_video.models.weights.torch_files import UnreadObject
from hiera_video.models.weights.transformers_names import PATCHES, rename_from_transformers

logger = logging.getLogger(__name__)

_KEYS = ("model_state", "state_dict", "model_state_dict", "model", "module")
_WRAPPERS = {
    "module",  # DataParallel, DistributedDataParallel, DeepSpeed
    "_orig_mod",  # torch.compile
    "_checkpoint_wrapped_module",  # activation checkpointing
    "_fsdp_wrapped_module",
    "_forward_module",  # Lightning's Fabric
}
_PATCH_EMBED = re.compile(
    r"(?P<prefix>(?:.+?\.)??)(?:patch_embed\.proj\.|(?:hiera\.)?" + re.escape(PATCHES) + ")weight"
)
_AVERAGED = re.compile(r"(?:^|[^a-z])ema(?:[^a-z]|$)", re.IGNORECASE)
_MAX_NESTING = 3
_AXES = {
    "patch_embed.proj.weight": (4, 5),
    "head.projection.weight": (2,),
    "pos_embed_win": (4,),
    "pos_embed_spatial": (3,),
    "pos_embed_temporal": (3,),
    "decoder_pos_embed": (3,),
}
"""Axes of the tensors that are converted before their shapes are compared with the model's."""


def extract_state_dict(contents: Any, source: str) -> State:
    """Return the state dict inside a checkpoint, with the authors' names.

    Finds Hiera's patch embedding, at the top level or in nested mappings, and removes what stands
    before it in every name: prefixes of wrappers (`module.`, `_orig_mod.`, `backbone.`, …). timm's
    and transformers' names are converted. Other tensors keep their names.

    Args:
        contents: A state dict, or a mapping that holds one, under `model_state` (the authors,
            PySlowFast), `state_dict`, `module` (DeepSpeed) or any other key. A moving average
            (`model_ema`) is used if there is no other model.
        source: Name of the checkpoint in messages.

    Raises:
        CheckpointError: If there are no tensors, two models, a tensor without plain values, or an
            object that was not read in the place of a model or of a tensor.
    """
    _check_models(contents, source)
    found = dict(_state_dicts(contents))
    models = {
        f"{path}{prefix}": (path, prefix)
        for path, state in found.items()
        for prefix in _prefixes(state)
    }
    if models:
        path, prefix = models[_choose(models, source)]
        state = _remove_prefix(found[path], prefix)
    else:
        state = next((found[path] for path in ("", *_keys_of(contents)) if path in found), {})
    if not state:
        raise CheckpointError(
            f"{source}: contains no weights; expected tensors by name, at the top level or under "
            f"{', '.join(_KEYS)}"
        )
    _check_values(state, source)
    state = rename_from_mmaction(state, source)
    for rename in (
        *(rename_from_videomae, rename_from_mae_st, rename_from_transformers, rename_from_timm),
        rename_from_mvit,
    ):
        state = rename(state)
    _check_axes(state, source)
    return state


def _check_models(contents: Any, source: str) -> None:
    """Raise an error if the file or one of its models is an object instead of a mapping."""
    models = {"its content": contents}
    if isinstance(contents, Mapping):
        models = {key: contents[key] for key in _KEYS if key in contents}
    for key, value in models.items():
        if isinstance(value, UnreadObject):
            raise CheckpointError(
                f"{source}: {key} is an object of {value.name}, which is not loaded; save its "
                "state dict, torch.save(model.state_dict(), …)"
            )


def _keys_of(contents: Any) -> Iterator[str]:
    return (f"{key}." for key in _KEYS if isinstance(contents, Mapping) and key in contents)


def _state_dicts(contents: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Yield each mapping with tensors by its path, such as `model.`, without wrappers' segments."""
    if not isinstance(contents, Mapping) or depth > _MAX_NESTING:
        return
    state: dict[str, Any] = {
        _remove_wrappers(name): value
        for name, value in contents.items()
        if isinstance(name, str) and isinstance(value, Tensor | UnreadObject)
    }
    if any(isinstance(value, Tensor) for value in state.values()):
        yield path, state  # `_check_values` refuses unread objects if this is the model
    for key, value in contents.items():
        yield from _state_dicts(value, f"{path}{key}.", depth + 1)


def _remove_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(state: State) -> list[str]:
    """Return what stands before Hiera's patch embedding, once for each model in `state`."""
    matches = (_PATCH_EMBED.fullmatch(name) for name in state)
    return [match["prefix"] for match in matches if match]


def _choose(models: Iterable[str], source: str) -> str:
    """Return the only model, or the only one that is no moving average."""
    names = list(models)
    plain = [name for name in names if not _AVERAGED.search(name)]
    candidates = plain or names
    if len(candidates) > 1:
        raise CheckpointError(
            f"{source}: contains {len(candidates)} models, "
            f"{', '.join(name.rstrip('.') or 'the top level' for name in candidates[:4])}; save "
            "the one to load in a file of its own"
        )
    others = [name.rstrip(".") for name in names if name not in candidates]
    if others:
        logger.info("%s: %s is not used", source, ", ".join(others))
    return candidates[0]


def _remove_prefix(state: State, prefix: str) -> State:
    """Remove `prefix` from names, and from other names (a head's) as much of it as they share."""
    segments = prefix.split(".")[:-1]
    inside: State = {}
    beside: State = {}
    for name, value in state.items():
        parts = name.split(".")
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(segments, parts[:-1]))
        count = sum(1 for _ in shared)
        (inside if count == len(segments) else beside)[".".join(parts[count:])] = value
    return beside | inside


def _check_values(state: State, source: str) -> None:
    for name, value in state.items():
        if isinstance(value, UnreadObject):
            raise CheckpointError(
                f"{source}: {name} is an object of {value.name} among the weights, which is not "
                "loaded; save tensors alone in the state dict"
            )
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            kind = "has no values" if value.is_meta else "is sparse or quantised"
            raise CheckpointError(
                f"{source}: {name} {kind}; save plain tensors (to_dense(), dequantize())"
            )


def _check_axes(state: State, source: str) -> None:
    kernel = state.get("patch_embed.proj.weight")
    needed = _AXES | {"pos_embed": (4,) if "pos_embed_win" in state else (3,)}
    for name, value in state.items():
        axes = needed.get(name)
        if name.startswith("multi_scale_fusion_heads.") and name.endswith(".weight"):
            axes = (4, 5) if kernel is None else (kernel.ndim,)
        is_table = "pos_embed" in name
        if axes and (value.ndim not in axes or not value.numel() or (is_table and len(value) > 1)):
            raise CheckpointError(
                f"{source}: {name} is {list(value.shape)}, which is no shape of Hiera's; the file "
                "is damaged"
            )
