"""Models by name: `list_models` and `create_model`."""

from __future__ import annotations

from fnmatch import fnmatch

from hiera_video.errors import ConfigError
from hiera_video.models.build import build_model
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for, default_mae, is_mae, list_names
from hiera_video.models.weights.load import load_pretrained, read_weights


def list_models(pattern: str = "*") -> list[str]:
    """Return the model names that match a shell pattern.

    >>> list_models("hiera_[st]*_16x224")
    ['hiera_tiny_16x224', 'hiera_small_16x224']
    """
    return [name for name in list_names() if fnmatch(name, pattern)]


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    pretrained: str | None = None,
    input_size: tuple[int, ...] | None = None,
    drop_path_rate: float = 0.0,
    head_dropout: float = 0.0,
    checkpointing: bool = False,
    mae: MaeConfig | None = None,
) -> Hiera | MaskedAutoencoderHiera:
    """Create a model by name, newly initialised or with pretrained weights.

    Sizes and recipes are the paper's (arXiv 2306.00989, tables 2 and 11).

    Args:
        name: A name of `list_models()`; `mae_…` names are masked autoencoders.
        num_classes: Outputs of the head; by default those of the pretrained weights, else the
            name's. 0 removes the head, and the model returns pooled features.
        pretrained: File, folder, run folder, `hf-hub:owner/name[@revision]` or published tag; see
            `read_weights`. None or "none" for newly initialised weights.
        input_size: (frames, height, width), or (height, width) for an image model; by default the
            name's. Position embeddings of pretrained weights are interpolated.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0.
        head_dropout: Dropout before the classifier.
        checkpointing: Recompute each block in the backward pass to save memory.
        mae: Masking, decoder and target of a `mae_…` model; the paper's by default.

    Returns:
        The model, in training mode.

    Raises:
        ConfigError: If the name is unknown or a value is out of range.
        InputSizeError: If `input_size` is not a multiple of a mask unit.
        CheckpointError: If the weights cannot be read or belong to another architecture.
    """
    if isinstance(pretrained, bool):
        raise ConfigError(
            f"pretrained={pretrained}: name the weights (a tag such as mae_k400_ft_k400, a file, a "
            "run folder, hf-hub:owner/name), or omit it for newly initialised ones"
        )
    weights = None if pretrained is None or pretrained == "none" else read_weights(pretrained, name)
    if weights is not None and num_classes is None:
        num_classes = weights.num_classes
    config = config_for(
        name,
        input_size=input_size,
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        head_dropout=head_dropout,
    )
    if is_mae(name):
        mae = mae or default_mae(name)
    elif mae is not None:
        raise ConfigError(
            f"mae was given, but {name} is a classifier; the masked autoencoder is mae_{name}"
        )
    model = build_model(config, mae, checkpointing)
    if weights is not None:
        load_pretrained(model, weights, name=name)
    return model
