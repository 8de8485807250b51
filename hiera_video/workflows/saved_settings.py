"""Test settings that travel with a saved model in `hiera_video.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hiera_video.config.load import flatten_config, override_config
from hiera_video.config.schema import Config
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.weights.load import Weights

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
