"""transformers' image Hiera: parameter names and `config.json`, to and from the authors'."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hiera_video.errors import CheckpointError
from hiera_video.models.layout import HieraConfig, stage_table
from hiera_video.models.registry import MaeConfig

logger = logging.getLogger(__name__)
PATCHES = "embeddings.patch_embeddings.projection."
"""Prefix of the patch embedding's weights, below `hiera.` in models with a head."""

_MODULES = {
    f"hiera.{PATCHES}": "patch_embed.proj.",
    "hiera.embeddings.position_embeddings": "pos_embed",
    "hiera.pooler.layernorm.": "norm.",
    "classifier.": "head.projection.",
    "encoder_norm.": "encoder_norm.",
    "multiscale_fusion.multi_scale_fusion_heads.": "multi_scale_fusion_heads.",
    "decoder.decoder_embeddings.": "decoder_embed.",
    "decoder.mask_token": "mask_token",
    "decoder.decoder_position_embeddings": "decoder_pos_embed",
    "decoder.decoder_block.layers.": "decoder_blocks.",
    "decoder.decoder_norm.": "decoder_norm.",
    "decoder.decoder_pred.": "decoder_pred.",
}
"""Beginnings of names, theirs → the authors'; blocks and norms inside blocks are mapped apart."""
_NORMS = {".layernorm_before.": ".norm1.", ".layernorm_after.": ".norm2."}
_LAYER = re.compile(r"hiera\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(.+)")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")

_ARGUMENTS = {
    "embed_dim": "embed_dim",
    "image_size": "input_size",
    "patch_size": "patch_kernel",
    "patch_stride": "patch_stride",
    "patch_padding": "patch_padding",
    "mlp_ratio": "mlp_ratio",
    "depths": "stages",
    "num_query_pool": "q_pool",
    "query_stride": "q_stride",
    "masked_unit_size": "mask_unit_size",
    "masked_unit_attention": "mask_unit_attn",
    "num_channels": "in_chans",
    "drop_path_rate": "drop_path_rate",
    "decoder_hidden_size": "decoder_embed_dim",
    "decoder_depth": "decoder_depth",
    "decoder_num_heads": "decoder_num_heads",
    "mask_ratio": "mask_ratio",
}
_FIXED = {"embed_dim_multiplier": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-6}


def rename_from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the authors' names, or unchanged if its names are not transformers'.

    The norms of single stages that `HieraBackbone` adds are left out: Hiera has none.
    """
    if not any(name.removeprefix("hiera.").startswith(PATCHES) for name in state):
        return state
    inner = ("embeddings.", "encoder.", "pooler.")  # HieraModel alone has no prefix
    state = {f"hiera.{name}" if name.startswith(inner) else name: v for name, v in state.items()}
    layers: dict[int, int] = {}
    for name in state:
        if match := _LAYER.fullmatch(name):
            stage = int(match[1])
            layers[stage] = max(layers.get(stage, 0), int(match[2]) + 1)
    renamed = {}
    for name, value in state.items():
        if match := _LAYER.fullmatch(name):
            block = sum(layers.get(stage, 0) for stage in range(int(match[1]))) + int(match[2])
            renamed[_rename(f"blocks.{block}.{match[3]}", _NORMS)] = value
        elif not name.startswith("hidden_states_norms."):
            renamed[_rename(name, _NORMS | _MODULES)] = value
    return renamed


def rename_to_transformers(state: Mapping[str, Tensor], config: HieraConfig) -> dict[str, Tensor]:
    """Return an image model's state dict with transformers' names."""
    norms = {ours: theirs for theirs, ours in _NORMS.items()}
    modules = {ours: theirs for theirs, ours in _MODULES.items()}
    renamed = {}
    for name, value in state.items():
        if match := _BLOCK.match(name):
            block = int(match[1])
            number, stage = next(
                (index, stage)
                for index, stage in enumerate(stage_table(config))
                if stage.first_block <= block <= stage.last_block
            )
            layer = f"hiera.encoder.stages.{number}.layers.{block - stage.first_block}.{match[2]}"
            renamed[_rename(layer, norms)] = value
        else:
            renamed[_rename(name, norms | modules)] = value
    return renamed


def _rename(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        if name.startswith(old) or (old.startswith(".") and old in name):
            name = name.replace(old, new, 1)
    return name


def arguments_from_transformers(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the constructor arguments that transformers' `config.json` means.

    Keys that are absent have the value of transformers' default.

    Raises:
        CheckpointError: If the model is none that this package can build.
    """
    arguments = {
        ours: config[theirs]
        for theirs, ours in _ARGUMENTS.items()
        if config.get(theirs) is not None
    }
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{source}: has {key}={config[key]}; Hiera needs {value}")
    heads = config.get("num_heads", [1, 2, 4, 8])
    first = heads[0] if isinstance(heads, list) and heads else None
    if not isinstance(first, int) or heads != [first * 2**stage for stage in range(len(heads))]:
        raise CheckpointError(
            f"{source}: has num_heads={heads}; Hiera doubles its heads from stage to stage"
        )
    arguments["num_heads"] = first
    units = config.get("masked_unit_attention", [])
    if isinstance(units, list) and units != sorted(units, reverse=True):
        raise CheckpointError(
            f"{source}: has masked_unit_attention={units}; global stages must come last, because "
            "transformers computes the first block of the others in another way"
        )
    if config.get("normalize_pixel_loss", True) is not True:
        logger.warning(
            "warning: %s: was pre-trained with normalize_pixel_loss=%s; this package's loss "
            "normalises the pixels of each patch, so losses and predicted pixels differ in scale",
            source, config["normalize_pixel_loss"],
        )  # fmt: skip
    labels = config.get("id2label")
    if isinstance(labels, dict):
        arguments["num_classes"] = len(labels)
    return arguments


def class_names_from_transformers(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names in `id2label`, or None if there are only its default labels."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return None
    try:
        names = tuple(str(labels[str(index)]) for index in range(len(labels)))
    except KeyError:
        return None
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def transformers_config(
    config: HieraConfig, mae: MaeConfig | None, class_names: tuple[str, ...] | None
) -> dict[str, Any]:
    """Return the contents of transformers' `config.json` for an image model.

    Raises:
        CheckpointError: If transformers has no such model.
    """
    if len(config.input_size) != 2 or config.sep_pos_embed:
        raise CheckpointError(
            f"input_size={list(config.input_size)}: transformers has Hiera for images only; save "
            "video models without library='transformers'"
        )
    if mae is not None and (mae.target, mae.decoder_tokens) != ("pixels", "all"):
        raise CheckpointError(
            f"mae.target={mae.target}, mae.decoder_tokens={mae.decoder_tokens}: transformers has "
            "target=pixels and decoder_tokens=all only"
        )
    if mae is not None and not mae.multi_scale:
        raise CheckpointError(
            "mae.multi_scale=false: transformers has autoencoders with multi_scale=true only"
        )
    values = {**vars(config), **({} if mae is None else vars(mae))}
    contents: dict[str, Any] = {
        "architectures": ["HieraForImageClassification" if mae is None else "HieraForPreTraining"],
        "model_type": "hiera",
        **{theirs: values[ours] for theirs, ours in _ARGUMENTS.items() if ours in values},
        **_FIXED,
        "num_heads": [config.num_heads * 2**stage for stage in range(len(config.stages))],
    }
    if mae is None:
        names = class_names or tuple(f"LABEL_{index}" for index in range(config.num_classes))
        contents["id2label"] = {str(index): name for index, name in enumerate(names)}
        contents["label2id"] = {name: index for index, name in enumerate(names)}
    else:
        contents["normalize_pixel_loss"] = True
    return contents
