"""Sizes and model names of the plain video ViT, VideoMAE's and MAE-ST's. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hiera_video.models.layout import HieraConfig
from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class VitConfig(HieraConfig):
    """Configuration of a plain ViT: a Hiera of one stage whose mask unit is one token."""

    fixed_positions: bool = True
    """Add VideoMAE's sine-cosine position embedding, which is not trained; else learned ones."""
    class_token: bool = False
    """Attend to a class token too, in encoder and decoder, as MAE-ST does; no head reads it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.stages) == 1 and not self.mask_unit_attn[0],
            f"stages={list(self.stages)}, mask_unit_attn={list(self.mask_unit_attn)}: a plain ViT "
            "has one stage, which attends over the clip",
        )
        require(
            not (self.fixed_positions and self.sep_pos_embed),
            "fixed_positions: one table for space and time; set sep_pos_embed=False",
        )


VIT_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 192, "num_heads": 3, "stages": (12,)},
    "small": {"embed_dim": 384, "num_heads": 6, "stages": (12,)},
    "base": {"embed_dim": 768, "num_heads": 12, "stages": (12,)},
    "large": {"embed_dim": 1024, "num_heads": 16, "stages": (24,)},
    "huge": {"embed_dim": 1280, "num_heads": 16, "stages": (32,)},
}
"""Channels, heads and blocks: VideoMAE's (arXiv 2203.12602), and DeiT's for tiny."""
VIT_DECODERS: dict[str, tuple[int, int, int]] = {
    "tiny": (96, 4, 3),
    "small": (192, 4, 3),
    "base": (384, 4, 6),
    "large": (512, 12, 8),
    "huge": (640, 12, 8),
    "micro": (32, 2, 1),
    "st": (512, 4, 16),
}
"""Channels, blocks and heads of the decoder: those of VideoMAE's scripts for small to huge, and
MAE-ST's (arXiv 2205.09113)."""


def vit_configs() -> dict[str, VitConfig]:
    """Return the configurations of the plain ViT by model name: classifiers, then `mae_…`."""
    plain = VitConfig(
        q_pool=0,
        q_stride=(1, 1, 1),
        mask_unit_size=(1, 1, 1),
        mask_unit_attn=(False,),
        stages=(12,),
        patch_kernel=(2, 16, 16),
        patch_stride=(2, 16, 16),
        patch_padding=(0, 0, 0),
        sep_pos_embed=False,
    )
    classifiers = {
        f"vit_{size}_16x224": replace(plain, **shape) for size, shape in VIT_SIZES.items()
    }
    classifiers["vit_micro_16x32"] = replace(
        plain,
        input_size=(16, 32, 32),
        embed_dim=64,
        num_heads=2,
        stages=(4,),
        patch_kernel=(2, 8, 8),
        patch_stride=(2, 8, 8),
        init="xavier",
        head_init_scale=1.0,
    )
    learned: dict[str, Any] = {"fixed_positions": False, "sep_pos_embed": True, "class_token": True}
    for name in ("base_16x224", "large_16x224", "micro_16x32"):
        classifiers[f"vit_st_{name}"] = replace(classifiers[f"vit_{name}"], **learned)
    autoencoders = {
        f"mae_{name}": replace(config, init="xavier") for name, config in classifiers.items()
    }
    return classifiers | autoencoders
