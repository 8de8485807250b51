"""State dicts adapted to a model: shapes converted, every tensor accounted for.

Pure functions from state dict to state dict; `load.py` reads the files, `state_dict.py` finds the
state dict in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiera_video.errors import CheckpointError
from hiera_video.models.hiera import Hiera, HieraEncoder
from hiera_video.models.mvit.names import resize_relative_positions
from hiera_video.models.registry import SIZES
from hiera_video.models.weights.heads import (
    AUTOENCODER,
    CLASSIFIER,
    ENCODER,
    FUSION,
    HEAD,
    unnamed_heads,
)
from hiera_video.models.weights.inflate import (
    DECODER_PREFIXES,
    Inflation,
    State,
    inflate_image_weights,
    resize_position_embeddings,
)
from hiera_video.models.weights.timm_names import merge_window_positions
from hiera_video.utils.text_files import count_of


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading weights into a model."""

    source: str
    """Source of the weights."""
    loaded: tuple[str, ...]
    """Parameters that were loaded."""
    newly_initialised: tuple[str, ...]
    """Parameters missing in the source, which keep their initial values."""
    dropped: tuple[str, ...]
    """Tensors of the source that the model does not have."""
    notes: tuple[str, ...]
    """Conversions, one sentence each."""


def adapt_state_dict(
    state: State, model: HieraEncoder, source: str, inflation: Inflation = "center"
) -> tuple[State, LoadReport]:
    """Select and convert the tensors of `state` that `model` can load.

    Position embeddings are interpolated, image weights are inflated for video, and a head of
    another class count is left out, whatever its name. A head, classifier, decoder or autoencoder
    may be missing or unused as a whole. Any other mismatch of names or shapes raises an error, so
    another architecture never loads in part.

    Args:
        state: Tensors by name, from `state_dict.extract_state_dict`.
        model: Model to load into; it is not changed.
        source: Name of the weights in messages.
        inflation: See `inflate_image_weights`.

    Returns:
        Tensors with the names and shapes of the model's parameters, and a report.

    Raises:
        CheckpointError: If the weights belong to another architecture or are incomplete.
    """
    parameters = dict(model.named_parameters())
    _check_size(state, model, source)
    state, notes = _convert(state, model, source, inflation)
    head, own_head = state.get(HEAD), parameters.get(HEAD)
    if head is not None and own_head is not None and len(head) != len(own_head):
        notes.append(
            f"head newly initialised: the file has {count_of(len(head), 'class')}, the model "
            f"{len(own_head)}"
        )
        state = {name: value for name, value in state.items() if not name.startswith("head.")}
    elif head is None and own_head is not None:
        notes += [
            f"head newly initialised: the file's {name} has {count_of(classes, 'class')}, the "
            f"model {len(own_head)}"
            for name, classes in unnamed_heads(state).items()
            if classes != len(own_head)
        ]
    adapted = {name: value for name, value in state.items() if name in parameters}
    for name, value in adapted.items():
        if not value.is_floating_point():
            raise CheckpointError(
                f"{source}: {name} is {value.dtype}; quantised weights do not load; save floats"
            )
        if value.shape != parameters[name].shape:
            raise CheckpointError(
                f"{source}: {name} is {list(value.shape)} in the file and "
                f"{list(parameters[name].shape)} in the model; the checkpoint belongs to another "
                f"architecture{likely_size(state)}"
            )
    report = LoadReport(
        source=source,
        loaded=tuple(adapted),
        newly_initialised=tuple(name for name in parameters if name not in adapted),
        dropped=tuple(name for name in state if name not in parameters),
        notes=tuple(notes),
    )
    _check_complete(state, model, report)
    return adapted, report


def _check_size(state: State, model: HieraEncoder, source: str) -> None:
    """Compare names, width and depth first: their messages are the most helpful ones."""
    if not any(name in state for name, _ in model.named_parameters()):
        raise CheckpointError(
            f"{source}: none of its {len(state)} tensors has a name of Hiera's; the weights belong "
            "to another model"
        )
    if "patch_embed.proj.weight" not in state:
        raise CheckpointError(
            f"{source}: has no patch_embed.proj.weight; the checkpoint is damaged or belongs to "
            "another model"
        )
    width, depth = width_and_depth(state)
    config = model.config
    if (width, depth) != (config.embed_dim, config.depth):
        raise CheckpointError(
            f"{source}: has {width} channels and {depth} blocks, the model {config.embed_dim} and "
            f"{config.depth}; the checkpoint belongs to another architecture{likely_size(state)}"
        )
    channels = state["patch_embed.proj.weight"].shape[1]
    if channels != config.in_chans:
        raise CheckpointError(
            f"{source}: takes {count_of(channels, 'channel')}, the model {config.in_chans}; create "
            f"the model with in_chans={channels}"
        )


def width_and_depth(state: State) -> tuple[int, int]:
    """Return the channels of stage 1 and the number of blocks."""
    matches = (re.match(r"blocks\.(\d+)\.", name) for name in state)
    depth = 1 + max((int(match.group(1)) for match in matches if match), default=-1)
    return len(state["patch_embed.proj.weight"]), depth


def likely_size(state: State) -> str:
    """Return a remark on the size that the weights seem to have, or an empty text."""
    found = width_and_depth(state)
    for size, shape in SIZES.items():
        if (shape["embed_dim"], sum(shape["stages"])) == found:
            return f" (it looks like hiera_{size}_…)"
    return ""


def _convert(
    state: State, model: HieraEncoder, source: str, inflation: Inflation
) -> tuple[State, list[str]]:
    config, notes = model.config, []
    if "pos_embed_win" in state:
        state = merge_window_positions(state, config, source)
        notes.append("window and global position embeddings added")
    dims = state["patch_embed.proj.weight"].ndim - 2
    if dims > len(config.patch_kernel):
        raise CheckpointError(
            f"{source}: has a video model's weights, but the model takes images; choose a …_16x224 "
            "name"
        )
    if dims < len(config.patch_kernel):
        state = inflate_image_weights(state, config, inflation)
        notes.append(f"image weights inflated in time ({inflation})")
    state, resized = resize_position_embeddings(state, config, source)
    state, interpolated = resize_relative_positions(state, model)
    return state, notes + resized + interpolated


def _check_complete(state: State, model: HieraEncoder, report: LoadReport) -> None:
    """Raise an error unless only whole parts (head, classifier, decoder) are missing or unused."""
    optional: list[str] = []
    parts = ((("head.",), ("norm.",)), (DECODER_PREFIXES, FUSION), (("cls_token",), ()))
    for part, base in parts:
        if not any(name.startswith(part) for name in state):
            optional += part
            if not any(name.startswith(base) for name in state):
                optional += base
    missing = [name for name in report.newly_initialised if not name.startswith(tuple(optional))]
    if missing:
        raise CheckpointError(
            f"{report.source}: lacks {_abbreviate(missing)}; the checkpoint is incomplete or "
            "belongs to another architecture"
        )
    known = (*ENCODER, *CLASSIFIER, *AUTOENCODER)
    unused = CLASSIFIER if not isinstance(model, Hiera) else (*AUTOENCODER, "head.")
    unexpected = [
        name for name in report.dropped if name.startswith(known) and not name.startswith(unused)
    ]
    if unexpected:
        raise CheckpointError(
            f"{report.source}: also has {_abbreviate(unexpected)}; the checkpoint belongs to "
            "another architecture"
        )
    if isinstance(model, Hiera):
        _check_classifier(state, model, report, known)


def _check_classifier(
    state: State, model: Hiera, report: LoadReport, known: tuple[str, ...]
) -> None:
    """Raise an error if norm or head are new, but the source seems to have them by other names.

    A head of another class count would be left out by any name.
    """
    new = [name for name in report.newly_initialised if name.startswith(CLASSIFIER)]
    heads = unnamed_heads(state)
    likely = [
        name
        for name in report.dropped
        if not name.startswith(known)
        and state[name].shape[-1:] == (model.num_features,)
        and heads.get(name, model.num_classes) == model.num_classes
    ]
    if new and likely and not any(name.startswith(AUTOENCODER) for name in state):
        raise CheckpointError(
            f"{report.source}: lacks {_abbreviate(new)}, but has {_abbreviate(likely)}, which may "
            "be its norm and head; rename them to norm.* and head.projection.*, or remove them to "
            "start with new ones"
        )


def _abbreviate(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
