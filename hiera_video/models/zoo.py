"""Models by name: `list_models`, `create_model`, and where published weights are."""

from __future__ import annotations

from fnmatch import fnmatch

from hiera_video.errors import ConfigError
from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import MaeConfig, config_for, default_mae, is_mae, list_names
from hiera_video.models.mae import MaskedAutoencoderHiera


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows, filtered with shell wildcards: `list_models("mae_*_16x224")`."""
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
    """Build a model by name, with fresh weights or pretrained ones.

    num_classes, input_size: the name's own where not given. mae: masking, decoder and target of a `mae_…` model; the
    paper's where not given. `ConfigError` or `InputSizeError` for what does not fit, with the nearest that does."""
    config = config_for(
        name,
        input_size=input_size,
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        head_dropout=head_dropout,
    )
    if is_mae(name):
        return MaskedAutoencoderHiera(config, mae or default_mae(name), checkpointing)
    if mae is not None:
        raise ConfigError(f"mae settings were given, but {name} is a classifier; the autoencoder is mae_{name}")
    return Hiera(config, checkpointing)
