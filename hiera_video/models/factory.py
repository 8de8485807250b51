"""Models by name: `list_models` and `create_model`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Never

from hiera_video.errors import ConfigError
from hiera_video.models.build import build_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for, default_mae, is_mae, list_names
from hiera_video.models.weights.load import load_pretrained, read_weights
from hiera_video.models.weights.published import default_tag

_OTHER_ARGUMENTS = {
    "drop_rate": "use head_dropout",
    "img_size": "use input_size",
    "num_frames": "use input_size=(frames, height, width)",
    "checkpoint_path": "use pretrained",
    "global_pool": "use model.reset_classifier(num_classes, global_pool)",
    "features_only": "use model.forward_intermediates(clips, output_fmt='NCHW')",
    "out_indices": "use model.forward_intermediates(clips, indices=…)",
}
"""timm's arguments that `create_model` lacks → its own."""


def list_models(pattern: str | Sequence[str] = "*", *, pretrained: bool = False) -> list[str]:
    """Return the model names that match a shell pattern, or one of several.

    >>> list_models("hiera_[st]*_16x224")
    ['hiera_tiny_16x224', 'hiera_small_16x224']
    >>> list_models(["hiera_tiny_*", "hiera_base_16*"], pretrained=True)
    ['hiera_base_16x224', 'hiera_tiny_224']

    Args:
        pattern: Shell pattern or patterns.
        pretrained: List only the models that have published weights.
    """
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return [
        name
        for name in list_names()
        if any(fnmatch(name, one) for one in patterns)
        and (not pretrained or default_tag(name) is not None)
    ]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    pretrained: str | Path | bool | None = None,
    input_size: tuple[int, ...] | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    head_dropout: float = 0.0,
    checkpointing: bool = False,
    mae: MaeConfig | Mapping[str, Any] | None = None,
    **others: Never,
) -> Hiera | MaskedAutoencoderHiera:
    """Create a model by name, newly initialised or with pretrained weights.

    Sizes and recipes are the paper's (arXiv 2306.00989, tables 2 and 11).

    Args:
        name: A name of `list_models()`; `mae_…` names are masked autoencoders.
        num_classes: Outputs of the head; by default those of the pretrained weights, else the
            name's. 0 removes the head, and the model returns pooled features.
        pretrained: File, folder, run folder, `hf-hub:owner/name[@revision]` or published tag; see
            `read_weights`. True for the published weights of the name, fine-tuned ones for a
            classifier; False, None or "none" for newly initialised ones.
        input_size: (frames, height, width), or (height, width) for an image model; by default the
            name's. Position embeddings of pretrained weights are interpolated.
        in_chans: Channels of the input; those of pretrained weights must be the same.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0.
        head_dropout: Dropout before the classifier.
        checkpointing: Recompute each block in the backward pass to save memory.
        mae: Masking, decoder and target of a `mae_…` model, as keys of the configuration's section
            `mae`, such as `{"mask_ratio": 0.75}`; the name's by default.
        others: None; timm's arguments by other names raise an error with ours.

    Returns:
        The model, in training mode.

    Raises:
        ConfigError: If a name is unknown, a value is out of range, or no weights are published.
        InputSizeError: If `input_size` is not a multiple of a mask unit.
        CheckpointError: If the weights cannot be read or belong to another architecture.
    """
    _check_arguments(others)
    source = _published_tag(name) if pretrained is True else pretrained
    weights = None if source in (None, False, "none") else read_weights(str(source), name)
    if weights is not None and num_classes is None:
        num_classes = weights.num_classes
    config = config_for(
        name,
        input_size=input_size,
        num_classes=num_classes,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        head_dropout=head_dropout,
    )
    if mae is not None and not is_mae(name):
        raise ConfigError(
            f"mae was given, but {name} is a classifier; the masked autoencoder is mae_{name}"
        )
    model = build_model(config, _make_mae(name, mae) if is_mae(name) else None, checkpointing)
    if weights is not None:
        load_pretrained(model, weights, name=name)
    return model


def _make_mae(name: str, mae: MaeConfig | Mapping[str, Any] | None) -> MaeConfig:
    if mae is None or isinstance(mae, MaeConfig):
        return mae or default_mae(name)
    keys = [field.name for field in fields(MaeConfig)]
    unknown = [key for key in mae if key not in keys]
    if unknown:
        raise ConfigError(f"mae: has no key {unknown[0]!r}; its keys: {', '.join(keys)}")
    return replace(default_mae(name), **mae)


def _check_arguments(others: Iterable[str]) -> None:
    """Raise an error that says what to use instead of arguments that do not exist."""
    hints = [f"{key}: {_OTHER_ARGUMENTS.get(key, 'unknown')}" for key in others]
    if hints:
        raise ConfigError(f"create_model has no such arguments: {'; '.join(hints)}")


def _published_tag(name: str) -> str | None:
    """Return the tag that `pretrained=True` stands for; None for an unknown name."""
    tag = default_tag(name)
    if tag is None and name in list_names():
        raise ConfigError(
            f"pretrained=True: {name} has no published weights; name a file, a run folder, "
            "hf-hub:owner/name, or the tag of another model, such as hiera_base_16x224.mae_k400"
        )
    return tag
