"""Configuration: YAML + key=value → frozen dataclasses."""

from hiera_video.config.load import flatten, load_config, save_config
from hiera_video.config.schema import Config

__all__ = ["Config", "flatten", "load_config", "save_config"]
