"""Configuration of a saved model: its architecture, and the test settings that travel with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hiera_video.config.load import flatten_config, override_config
from hiera_video.config.schema import Config
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.factory import list_models
from hiera_video.models.layout import HieraConfig
from hiera_video.models.registry import ModelConfig, config_for, default_mae, is_mae, name_of
from hiera_video.models.weights.architecture import rebuild_configs
from hiera_video.models.weights.load import Weights
from hiera_video.models.weights.published import checkpoint_tags
from hiera_video.train.config import TrainConfig

KEYS = (
    *("clip.num_frames", "clip.frame_stride", "clip.target_fps", "clip.sampling"),
    *("clip.short_videos", "clip.test_starts", "test.clips", "test.crops"),
    *("augment.mean", "augment.std"),
)
"""The keys that decide what the model receives of a video."""


def settings_to_save(config: Config) -> dict[str, Any]:
    """Return the values of `KEYS`, for `save_pretrained`."""
    values = flatten_config(config)
    return {key: values[key] for key in KEYS}


def restore_settings(config: Config, weights: Weights) -> Config:
    """Return `config` with the settings that were saved with `weights`, if any.

    Raises:
        CheckpointError: A saved value is invalid. Other keys than `KEYS` have no effect.
    """
    saved = weights.extras.get("settings") or {}
    try:
        if not isinstance(saved, Mapping):
            raise ConfigError(f"{saved!r} is no object")
        overrides = [f"{key}={json.dumps(saved[key])}" for key in KEYS if key in saved]
        if any("$" in override for override in overrides):  # would be looked up elsewhere
            raise ConfigError("a value has a $")
        return override_config(config, overrides)
    except ConfigError as error:
        raise CheckpointError(
            f"{weights.source}: its hiera_video.json has invalid settings ({error}); save the "
            "model again, or delete the key 'settings' for the default ones"
        ) from error


def config_of_weights(weights: Weights, name: str | None = None) -> Config:
    """Return the configuration to test or extract with weights that are no run.

    Args:
        weights: The weights.
        name: The model's name, by default that of `config.json`; `mae_…` is a masked autoencoder.

    Raises:
        ConfigError: The model is unknown, or an image model.
        CheckpointError: A stored value is invalid.
    """
    name, size, mae = name or _model_name(weights), None, None
    if weights.config:
        architecture, decoder = rebuild_configs(
            weights.config, weights.extras, weights.state, weights.source
        )
        size = architecture.input_size if "input_size" in weights.config else None
        mae = decoder if is_mae(name) else None
    section = ModelConfig(name=name, num_classes=weights.num_classes, input_size=size)
    input_size = config_for(name, input_size=size).input_size
    if len(input_size) != 3:
        raise ConfigError(
            f"{weights.source}: {name} is an image model; hv.load needs a video model, "
            "hv.from_pretrained loads both"
        )
    clip = ClipConfig(num_frames=input_size[0])
    if is_mae(name):
        task, mae = TrainConfig(task="pretrain"), mae or default_mae(name)
        config = Config(model=section, clip=clip, train=task, mae=mae)
    else:
        config = Config(model=section, clip=clip)
    return restore_settings(config, weights)


def _model_name(weights: Weights) -> str:
    """Return the name of the model that `weights` are for."""
    if weights.source in checkpoint_tags():
        return weights.source.partition(".")[0]
    config, _ = rebuild_configs(weights.config, weights.extras, weights.state, weights.source)
    name = _mae_name(config) if "mask_token" in weights.state else name_of(config)
    if name is None:
        raise ConfigError(
            f"{weights.source}: its config.json is of no model in list_models(); "
            "hv.from_pretrained rebuilds it without a test transform"
        )
    return name


def _mae_name(config: HieraConfig) -> str | None:
    """Return the masked autoencoder's name whose configuration is `config` but for options."""
    options = ("input_size", "num_classes", "drop_path_rate", "head_dropout", "init")
    values = {key: getattr(config, key) for key in (*options, "head_init_scale")}
    for name in list_models("mae_*"):
        known = config_for(name)
        same_axes = len(known.input_size) == len(config.input_size)
        if same_axes and replace(known, **values) == config:
            return name
    return None
