"""The architecture behind weights: `config.json` of four libraries, and the weights' shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hiera_video.errors import CheckpointError, HieraVideoError
from hiera_video.models.layout import HieraConfig
from hiera_video.models.mvit.config import LadderConfig
from hiera_video.models.registry import MaeConfig, config_for, default_mae
from hiera_video.models.vit.config import VitConfig
from hiera_video.models.weights.inflate import State
from hiera_video.models.weights.save import DECODER_KEYS
from hiera_video.models.weights.timm_names import size_of_architecture
from hiera_video.models.weights.transformers_names import arguments_from_transformers

_AUTHORS_DEFAULTS: dict[str, Any] = {
    "decoder_embed_dim": 512,
    "decoder_depth": 8,
    "decoder_num_heads": 16,
}
"""Defaults of hiera-transformer's constructors that are not ours, for images and video."""
_AUTHORS_CLASSES = 1000
_IMAGE = config_for("hiera_base_224")
_IMAGE_MASK_RATIO = default_mae("mae_hiera_base_224").mask_ratio
_IMAGE_DEFAULTS = {
    key: getattr(_IMAGE, key)
    for key in (
        *("input_size", "q_stride", "mask_unit_size", "patch_kernel", "patch_stride"),
        *("patch_padding", "sep_pos_embed"),
    )
}


def constructor_arguments(config: Mapping[str, Any], state: State, source: str) -> dict[str, Any]:
    """Return hiera-transformer's constructor arguments for a `config.json`.

    Keys that are absent have the default of the library that wrote the file. hiera-transformer's
    are those of an image model and a decoder of 16 heads; if the patch embedding is a video
    model's, the video model's instead. Channels and kernel are the patch embedding's, classes the
    head's.

    Args:
        config: Contents of `config.json`, of this package, hiera-transformer, transformers or timm.
        state: The weights beside it, with the authors' names.
        source: Name of the weights in messages.

    Raises:
        CheckpointError: If the file describes a model that this package cannot build.
    """
    if not config:
        return {}
    if config.get("model_type") == "hiera":
        config = arguments_from_transformers(config, source)
    elif isinstance(config.get("architecture"), str):
        config = _arguments_from_timm(config, source)
    inferred: dict[str, Any] = {}
    kernel = state.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim in (4, 5):
        inferred = {"embed_dim": kernel.shape[0], "in_chans": kernel.shape[1]}
        inferred["patch_kernel"] = tuple(kernel.shape[2:])
        if kernel.ndim == 4:
            inferred = _IMAGE_DEFAULTS | inferred
    head = state.get("head.projection.weight")
    inferred["num_classes"] = _AUTHORS_CLASSES if head is None else len(head)
    return _AUTHORS_DEFAULTS | inferred | dict(config)


def _arguments_from_timm(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    size = size_of_architecture(config["architecture"])
    try:
        known = config_for(f"hiera_{size}_224")
    except HieraVideoError as error:
        raise CheckpointError(
            f"{source}: config.json has architecture={config['architecture']!r}, which is not "
            "timm's Hiera"
        ) from error
    arguments = {key: getattr(known, key) for key in ("embed_dim", "num_heads", "stages")}
    for section in ("pretrained_cfg", "model_args"):
        options = config.get(section)
        if isinstance(options, dict):
            pixels = options.get("img_size", options.get("input_size"))
            if isinstance(pixels, list):  # channels, height, width
                arguments["input_size"] = pixels[-2:]
            elif pixels is not None:
                arguments["input_size"] = [pixels, pixels]
    if "num_classes" in config:
        arguments["num_classes"] = config["num_classes"]
    return arguments


def rebuild_configs(
    config: Mapping[str, Any], extras: Mapping[str, Any], state: State, source: str
) -> tuple[HieraConfig, MaeConfig]:
    """Return the configurations of the model that weights were saved from.

    Args:
        config: Constructor arguments, from `constructor_arguments`.
        extras: Contents of `hiera_video.json`, or empty.
        state: The weights, with the authors' names. Without a head, the model has 0 classes.
        source: Name of the weights in messages.

    Raises:
        CheckpointError: If there is no configuration, or it has wrong values.
    """
    if not config:
        raise CheckpointError(
            f"{source}: has no config.json; build the model with create_model(…, pretrained=…) "
            "instead"
        )
    kinds = {"kv_stride": LadderConfig, "fixed_positions": VitConfig}
    kind = next((found for key, found in kinds.items() if key in config), HieraConfig)
    names = {field.name for field in fields(kind)}
    arguments = {key: value for key, value in config.items() if key in names}
    is_autoencoder = "mask_token" in state
    if not is_autoencoder and "head.projection.weight" not in state:
        arguments["num_classes"] = 0
    init = extras.get("init", "xavier" if is_autoencoder else "trunc_normal")
    decoder = {key: config[key] for key in (*DECODER_KEYS, "mask_ratio") if key in config}
    try:
        _check_types(arguments, kind)
        encoder = kind(**{"init": init, **arguments})
        if len(encoder.input_size) == 2:
            decoder = {"mask_ratio": _IMAGE_MASK_RATIO, **decoder}
        return encoder, MaeConfig(**{**decoder, **(extras.get("mae") or {})})
    except (TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"{source}: config.json was not written by this package, hiera-transformer, "
            f"transformers or timm ({error}); load weights that have Hiera's parameter names by "
            "create_model(…, pretrained=…)"
        ) from error


def _check_types(arguments: Mapping[str, Any], kind: type[HieraConfig]) -> None:
    """Raise `TypeError` for a value that is not of the type of its default."""
    for key, value in arguments.items():
        default = getattr(kind, key)
        if key == "kv_stride":  # empty by default
            default = LadderConfig.q_stride
        items, example = (value, default[0]) if isinstance(default, tuple) else ([value], default)
        kinds = (float, int) if isinstance(example, float) else type(example)
        if not isinstance(items, list | tuple) or not all(
            isinstance(item, kinds) and isinstance(item, bool) == isinstance(example, bool)
            for item in items
        ):
            raise TypeError(f"{key}={value!r}: must be of the type of {default!r}")
