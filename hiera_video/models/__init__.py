"""Hiera encoders, masked autoencoders and their weights. Importing this package does not import torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiera_video.models.hiera import Hiera
    from hiera_video.models.layout import HieraConfig, MaeConfig, ModelConfig, config_for, list_names, stage_table
    from hiera_video.models.macs import count_macs, count_parameters
    from hiera_video.models.mae import MaeOutput, MaskedAutoencoderHiera, random_keep
    from hiera_video.models.weights import (
        from_pretrained,
        inflate_image_weights,
        load_pretrained,
        read_weights,
        save_pretrained,
    )
    from hiera_video.models.zoo import create_model, list_models

_HOMES = {
    "Hiera": "hiera",
    "HieraConfig": "layout",
    "MaeConfig": "layout",
    "MaeOutput": "mae",
    "MaskedAutoencoderHiera": "mae",
    "ModelConfig": "layout",
    "config_for": "layout",
    "count_macs": "macs",
    "count_parameters": "macs",
    "create_model": "zoo",
    "from_pretrained": "weights",
    "inflate_image_weights": "weights",
    "list_models": "zoo",
    "list_names": "layout",
    "load_pretrained": "weights",
    "random_keep": "mae",
    "read_weights": "weights",
    "save_pretrained": "weights",
    "stage_table": "layout",
}

__all__ = [
    "Hiera",
    "HieraConfig",
    "MaeConfig",
    "MaeOutput",
    "MaskedAutoencoderHiera",
    "ModelConfig",
    "config_for",
    "count_macs",
    "count_parameters",
    "create_model",
    "from_pretrained",
    "inflate_image_weights",
    "list_models",
    "list_names",
    "load_pretrained",
    "random_keep",
    "read_weights",
    "save_pretrained",
    "stage_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
