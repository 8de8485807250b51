"""Other packages in the speed benchmark: hiera-transformer, hiera-optim, timm and transformers."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any
from unittest import mock

from speed_case import Case
from torch import Tensor, nn

from hiera_video.models.layout import HieraConfig
from hiera_video.models.registry import SIZES

State = dict[str, Tensor]
_PACKAGES = {
    "reference": "hiera",
    "optim": "hiera_optim",
    "timm": "timm",
    "transformers": "transformers",
}
_SHARED = (
    *("input_size", "in_chans", "num_classes", "embed_dim", "num_heads", "stages", "mlp_ratio"),
    *("q_pool", "q_stride", "mask_unit_size", "mask_unit_attn", "sep_pos_embed"),
    *("patch_kernel", "patch_stride", "patch_padding"),
)
"""Fields of `HieraConfig` that hiera-transformer's constructor takes as well."""


def missing_package(name: str) -> str | None:
    """Return the package that an implementation needs, if it is not installed."""
    package = _PACKAGES.get(name)
    return package if package and importlib.util.find_spec(package) is None else None


def import_package(name: str) -> None:
    """Import the package of an implementation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hiera-transformer warns about timm
        if name in ("reference", "optim"):
            importlib.import_module("hiera.hiera_mae")
        elif name in _PACKAGES:
            importlib.import_module(_PACKAGES[name])
        if name == "optim":
            import hiera

            # hiera-optim expects this name in `hiera`; 0.1.4 defines it in another module
            with mock.patch.object(
                hiera, "apply_fusion_head", hiera.hiera_mae.apply_fusion_head, create=True
            ):
                importlib.import_module("hiera_optim")


def reference(case: Case) -> nn.Module:
    import hiera

    config, mae = case.config, case.mae()
    arguments: dict[str, Any] = {name: getattr(config, name) for name in _SHARED}
    if mae is None:
        return hiera.Hiera(**arguments)  # type: ignore[no-any-return]
    for key in ("decoder_embed_dim", "decoder_depth", "decoder_num_heads"):
        arguments[key] = getattr(mae, key)
    return hiera.MaskedAutoencoderHiera(**arguments)  # type: ignore[no-any-return]


def optimise(model: nn.Module, graph_safe: bool) -> nn.Module:
    """Patch the authors' model with hiera-optim, which changes this object and no class."""
    import hiera_optim

    # hiera-optim's forward reads this attribute, which 0.1.4 does not define
    model._grad_checkpointing = False  # type: ignore[assignment]
    return hiera_optim.optimize(model, graph_safe=graph_safe, verbose=False)  # type: ignore[no-any-return]


def assert_unpatched(model: nn.Module) -> None:
    """Assert that hiera-optim, in the same process, has not changed the reference."""
    import hiera

    blocks = [*model.blocks, *getattr(model, "decoder_blocks", [])]  # type: ignore[misc]
    assert all(type(block.attn) is hiera.MaskUnitAttention for block in blocks)
    assert not {"forward", "forward_encoder", "forward_decoder"} & set(vars(model))
    assert type(model).forward.__module__.startswith("hiera."), type(model).forward.__module__


def timm_model(case: Case) -> nn.Module:
    import timm

    arguments = {"num_classes": case.config.num_classes, "img_size": case.input_size}
    return timm.create_model(f"hiera_{case.size}_224", pretrained=False, **arguments)  # type: ignore[no-any-return]


def transformers_model(case: Case) -> nn.Module:
    from transformers import HieraConfig as TheirConfig
    from transformers import HieraForImageClassification

    shape = SIZES[case.size]
    config = TheirConfig(
        embed_dim=shape["embed_dim"],
        depths=list(shape["stages"]),
        num_heads=[shape["num_heads"] * 2**stage for stage in range(4)],
        image_size=list(case.input_size),
        num_labels=case.config.num_classes,
    )
    return HieraForImageClassification(config)


def rename_weights(name: str, state: State, case: Case) -> State:
    """Rename weights from the authors' names to those of an implementation."""
    if name == "timm":
        return {_timm_name(key): value for key, value in state.items()}
    if name == "transformers":
        return {_transformers_name(key, case.config): value for key, value in state.items()}
    return state


def _timm_name(key: str) -> str:
    for old, new in (("head.projection.", "head.fc."), ("norm.", "head.norm.")):
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _transformers_name(key: str, config: HieraConfig) -> str:
    if key.startswith("blocks."):
        _, number, rest = key.split(".", 2)
        stage, layer = 0, int(number)
        while layer >= config.stages[stage]:
            layer, stage = layer - config.stages[stage], stage + 1
        for old, new in (("norm1", "layernorm_before"), ("norm2", "layernorm_after")):
            rest = rest.replace(old, new)
        return f"hiera.encoder.stages.{stage}.layers.{layer}.{rest}"
    starts = {
        "patch_embed.proj.": "hiera.embeddings.patch_embeddings.projection.",
        "pos_embed": "hiera.embeddings.position_embeddings",
        "norm.": "hiera.pooler.layernorm.",
        "head.projection.": "classifier.",
    }
    return next(new + key[len(old) :] for old, new in starts.items() if key.startswith(old))
