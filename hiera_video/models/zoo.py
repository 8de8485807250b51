"""Models by name: `list_models`, `create_model`, and where published weights are."""

from __future__ import annotations

from fnmatch import fnmatch

from hiera_video.models.hiera import Hiera
from hiera_video.models.layout import MaeConfig, config_for, list_names


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
) -> Hiera:
    config = config_for(
        name,
        input_size=input_size,
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
        head_dropout=head_dropout,
    )
    return Hiera(config, checkpointing)
