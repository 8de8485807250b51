"""Models by name: `list_models`, `create_model`, and where published weights are."""

from __future__ import annotations

from fnmatch import fnmatch

from hiera_video.errors import ConfigError
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.registry import MaeConfig, config_for, default_mae, is_mae, list_names
from hiera_video.models.weights.load import load_pretrained, read_weights


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

    num_classes: the weights' own where not given, or the name's. input_size: the name's where not given. pretrained:
    whatever `read_weights` takes; None or "none" for fresh weights. mae: masking, decoder and target of a `mae_…`
    model; the paper's where not given. `ConfigError` or `InputSizeError` for what does not fit, with the nearest that
    does; `CheckpointError` for weights that cannot be had or are of another model."""
    if isinstance(pretrained, bool):
        raise ConfigError(
            f"pretrained={pretrained}: name the weights (a tag such as mae_k400_ft_k400, a file, a run's folder, "
            "hf-hub:owner/name); leave it out for fresh ones"
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
    model: Hiera | MaskedAutoencoderHiera
    if is_mae(name):
        model = MaskedAutoencoderHiera(config, mae or default_mae(name), checkpointing)
    elif mae is not None:
        raise ConfigError(
            f"mae settings were given, but {name} is a classifier; the autoencoder is mae_{name}"
        )
    else:
        model = Hiera(config, checkpointing)
    if weights is not None:
        load_pretrained(model, weights, name=name)
    return model
