"""Models to export: from a run, or by name with pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hiera_video.config.load import load_config
from hiera_video.config.schema import MAX_CLIP_PIXELS, Config
from hiera_video.data.config import AugmentConfig, DataConfig
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError
from hiera_video.models.registry import ModelConfig, config_for, is_mae
from hiera_video.utils.checks import require

if TYPE_CHECKING:
    from hiera_video.export.program import Output
    from hiera_video.models.hiera import Hiera


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """A model, and the facts that users of its program need."""

    model: Hiera
    name: str
    """Model name."""
    weights: str
    """Origin of the weights."""
    clip: ClipConfig | None
    """Frames of a clip; None for an image model."""
    class_names: tuple[str, ...] | None = None
    """Class names, if known."""
    multi_label: bool = False
    """True if the model was trained with several labels a video."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Mean and standard deviation of the normalisation."""
    data: DataConfig = field(default_factory=DataConfig)
    """The run's videos."""


def check_exportable(run: str | None, model: str | None, overrides: Sequence[str] = ()) -> None:
    """Raise `ConfigError` for a model that cannot be exported, before torch is imported."""
    config = load_config(Path(run) / "config.yaml", overrides) if run else None
    name = config.model.name if config else str(model)
    config_for(name)
    if config and config.train.task == "detect":
        raise ConfigError(
            f"{run}: is a run of action detection, and programs take no boxes; export its "
            f"features: --model {name} --checkpoint {run} --output-of features"
        )
    if is_mae(name):
        encoder = name.removeprefix("mae_")
        raise ConfigError(
            f"{name}: a masked autoencoder draws random masks and returns a loss; export its "
            f"encoder: --model {encoder} --pretrained {run or 'FILE'} --output-of features"
        )


def export_source_from_run(
    run: str, which: Literal["best", "last"] | None, overrides: Sequence[str] = ()
) -> ExportSource:
    """Load the model of a run.

    Args:
        run: Folder of the run.
        which: Checkpoint; the best by default, see `find_checkpoint`.
        overrides: `key=value` overrides of its configuration.

    Raises:
        CheckpointError: If the run has no such checkpoint.
    """
    from hiera_video.models.weights.load import find_checkpoint
    from hiera_video.workflows.load_run import load, override_run

    loaded, checkpoint = load(run, which), find_checkpoint(Path(run), which)
    loaded = override_run(loaded, overrides)
    return ExportSource(
        model=loaded.model,  # type: ignore[arg-type]  # check_exportable excludes autoencoders
        name=loaded.config.model.name,
        weights=f"{run} ({checkpoint.name})",
        clip=loaded.config.clip,
        class_names=loaded.class_names,
        multi_label=loaded.multi_label,
        augment=loaded.config.augment,
        data=loaded.config.data,
    )


def export_source_from_weights(name: str, pretrained: str, output: Output) -> ExportSource:
    """Create a model by name with pretrained weights.

    Clips and normalisation are those saved with the weights, or else the published models'.

    Args:
        name: Model name.
        pretrained: See `read_weights`; "none" for newly initialised weights.
        output: The output to export; "logits" needs weights with a head.

    Raises:
        ConfigError: If the weights have no head.
        CheckpointError: If the weights cannot be read.
    """
    from hiera_video.models.factory import create_model
    from hiera_video.models.weights.architecture import rebuild_configs
    from hiera_video.models.weights.load import load_pretrained, read_weights
    from hiera_video.workflows.saved_settings import restore_settings

    weights = None if pretrained == "none" else read_weights(pretrained, name)
    if weights is not None and weights.num_classes is None and output == "logits":
        raise ConfigError(
            f"{pretrained}: has no classifier head; export its features: --output-of features"
        )
    size = None
    if weights is not None and "input_size" in weights.config:
        parts = weights.config, weights.extras, weights.state, weights.source
        size = rebuild_configs(*parts)[0].input_size
        require(
            math.prod(size) <= MAX_CLIP_PIXELS,
            f"{pretrained}: its config.json has input_size={list(size)}, more than "
            f"{MAX_CLIP_PIXELS:,} pixels a clip; copy the folder again",
        )
    model = create_model(
        name, num_classes=weights.num_classes if weights else None, input_size=size
    )
    if weights is not None:
        load_pretrained(model, weights, name=name)
    size = model.config.input_size
    clip = ClipConfig(num_frames=size[0]) if len(size) == 3 else None
    source = ExportSource(
        model=model.eval(),  # type: ignore[arg-type]
        name=name,
        weights=pretrained,
        clip=clip,
        class_names=weights.class_names if weights else None,
        multi_label=bool(weights and weights.multi_label),
    )
    if clip is None or weights is None or not weights.extras.get("settings"):
        return source
    config = Config(model=ModelConfig(name=name, input_size=size), clip=clip)
    config = restore_settings(config, weights)
    return replace(source, clip=config.clip, augment=config.augment)
