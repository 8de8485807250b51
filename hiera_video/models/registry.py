"""Models by name, as data: the `model` and `mae` sections, the sizes, and the configuration behind each name.

No torch, so that a wrong name or input size is told at once. `geometry.py` holds the geometry; it can be had from here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from hiera_video.errors import ConfigError
from hiera_video.models.layout import (
    AXES,
    BlockLayout,
    HieraConfig,
    StageLayout,
    block_table,
    check_input_size,
    stage_table,
)
from hiera_video.utils.checks import require

__all__ = [
    "SIZES",
    "BlockLayout",
    "HieraConfig",
    "MaeConfig",
    "ModelConfig",
    "StageLayout",
    "block_table",
    "check_mask_ratio",
    "config_for",
    "default_mae",
    "is_mae",
    "list_names",
    "num_visible",
    "stage_table",
]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The `model` section: which model, and where its weights come from."""

    name: str
    """A name of `list_models()`; `mae_…` goes with train.task=pretrain."""
    input_size: tuple[int, ...] | None = None
    """(frames, height, width), or (height, width) for an image model; the name's own where unset."""
    num_classes: int | None = None
    """Outputs of the head; the manifest's class count where unset."""
    pretrained: str | None = None
    """Run folder, file, `hf-hub:owner/name`, or a tag that the zoo knows; `none`: from scratch, on purpose."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block."""
    head_dropout: float = 0.0
    """Dropout before the classifier."""
    checkpointing: bool = False
    """Recompute each block in the backward pass: about a third more time, far less memory."""

    def __post_init__(self) -> None:
        if self.input_size is not None:
            object.__setattr__(self, "input_size", tuple(self.input_size))
        config_for(
            self.name,
            input_size=self.input_size,
            num_classes=self.num_classes,
            drop_path_rate=self.drop_path_rate,
            head_dropout=self.head_dropout,
            section="model.",
        )


@dataclass(frozen=True, kw_only=True)
class MaeConfig:
    """The `mae` section: masking, decoder and target of the masked autoencoder. Defaults: the paper's video recipe."""

    mask_ratio: float = 0.9
    """Share of the mask units that is hidden (paper: 0.9 for video, 0.6 for images)."""
    decoder_embed_dim: int = 512
    """Width of the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_num_heads: int = 8
    """Heads of the decoder (paper, table 11a: 8 for video; weights for 16 have the same shapes and load silently)."""
    masking: Literal["random", "tube", "future"] = "random"
    """Which units are hidden: any in space and time (the paper), the same place in every frame (VideoMAE), or the clip's
    last frames (as SiamMAE hides the future, arXiv 2305.14344; nothing is drawn): what moves has to be carried on."""
    target: Literal["pixels", "hog"] = "pixels"
    """What is predicted: normalised pixels, or histograms of oriented gradients (MaskFeat)."""
    target_frames: Literal["first", "all"] = "first"
    """Frames of each token that are predicted: the first (the paper), or all (VideoMAE)."""
    decoder_tokens: Literal["all", "running_cell", "random"] = "all"
    """Hidden tokens that are decoded: all (the paper), or a share of them (VideoMAE V2's dual masking)."""
    decoder_share: float = 0.5
    """That share; used unless decoder_tokens is all."""

    def __post_init__(self) -> None:
        check_mask_ratio(self.mask_ratio, "mae.mask_ratio")
        for name in ("decoder_embed_dim", "decoder_depth", "decoder_num_heads"):
            require(
                getattr(self, name) >= 1, f"mae.{name}={getattr(self, name)}: must be 1 or more"
            )
        require(
            self.decoder_embed_dim % self.decoder_num_heads == 0,
            f"mae.decoder_embed_dim={self.decoder_embed_dim}: not a multiple of "
            f"decoder_num_heads={self.decoder_num_heads}",
        )
        require(
            0 < self.decoder_share <= 1,
            f"mae.decoder_share={self.decoder_share}: must be above 0, at most 1",
        )
        for name, choices in _MAE_CHOICES.items():
            value = getattr(self, name)
            require(value in choices, f"mae.{name}={value!r}: choose one of {', '.join(choices)}")


_MAE_CHOICES = {
    "masking": ("random", "tube", "future"),
    "target": ("pixels", "hog"),
    "target_frames": ("first", "all"),
    "decoder_tokens": ("all", "running_cell", "random"),
}


def check_mask_ratio(ratio: float, key: str = "mask_ratio") -> None:
    """Raise `ConfigError` unless some of the clip may be hidden and some seen."""
    require(
        0 < ratio < 1,
        f"{key}={ratio}: must be above 0 and below 1, or nothing is hidden, or nothing is seen",
    )


def num_visible(units: int, mask_ratio: float) -> int:
    """Units that stay visible: 39 of 392 at 0.9. Raises `ConfigError` where that leaves none, or hides none."""
    check_mask_ratio(mask_ratio)
    visible = int(units * (1 - mask_ratio) + 1e-6)  # 10 * (1 - 0.9) is 0.9999…, and means 1
    require(
        0 < visible < units,
        f"mask_ratio={mask_ratio}: keeps {visible} of {units} units; "
        f"choose a ratio between {1 / units:.3g} and {1 - 1 / units:.3g}",
    )
    return visible


# Table 2 of the paper (arXiv 2306.00989): width, heads and blocks per stage.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2)},
    "small": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2)},
    "base": {"embed_dim": 96, "num_heads": 1, "stages": (2, 3, 16, 3)},
    "base_plus": {"embed_dim": 112, "num_heads": 2, "stages": (2, 3, 16, 3)},
    "large": {"embed_dim": 144, "num_heads": 2, "stages": (2, 6, 36, 4)},
    "huge": {"embed_dim": 256, "num_heads": 4, "stages": (2, 6, 36, 4)},
}

_IMAGE: dict[str, Any] = {
    "input_size": (224, 224),
    "num_classes": 1000,
    "q_stride": (2, 2),
    "mask_unit_size": (8, 8),
    "patch_kernel": (7, 7),
    "patch_stride": (4, 4),
    "patch_padding": (3, 3),
    "sep_pos_embed": False,
}

# Small enough to learn motion on two CPU cores in minutes. Its second stage is global: with one block in the last
# stage, the lag would leave a global third stage without a single global block, and time would never be mixed.
# The head starts at full scale: scaled by 0.001, as the large sizes have it, it stays near chance for 200 steps.
_MICRO: dict[str, Any] = {
    "input_size": (16, 32, 32),
    "embed_dim": 64,
    "num_heads": 1,
    "stages": (1, 2, 1),
    "q_pool": 2,
    "mask_unit_size": (1, 4, 4),
    "mask_unit_attn": (True, False, False),
    "init": "xavier",
    "head_init_scale": 1.0,
}


def _all_names() -> dict[str, HieraConfig]:
    classifiers = {f"hiera_{size}_16x224": HieraConfig(**shape) for size, shape in SIZES.items()}
    classifiers["hiera_micro_16x32"] = HieraConfig(**_MICRO)
    classifiers |= {
        f"hiera_{size}_224": HieraConfig(**shape, **_IMAGE) for size, shape in SIZES.items()
    }
    # the autoencoder pools once less, so that a hidden unit is predicted as 2x2 tokens
    autoencoders = {
        f"mae_{name}": replace(config, q_pool=config.q_pool - 1, init="xavier")
        for name, config in classifiers.items()
    }
    return classifiers | autoencoders


_CONFIGS = _all_names()


def list_names() -> tuple[str, ...]:
    """Every model name: video classifiers, image classifiers, then their masked autoencoders (`mae_…`)."""
    return tuple(_CONFIGS)


def is_mae(name: str) -> bool:
    """Whether the name means a masked autoencoder."""
    return name.startswith("mae_")


def config_for(
    name: str,
    *,
    input_size: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    drop_path_rate: float = 0.0,
    head_dropout: float = 0.0,
    section: str = "",
) -> HieraConfig:
    """The configuration of a name. `ConfigError` with the nearest names for an unknown one, `InputSizeError` with the
    nearest sizes for a size that does not divide. `section` prefixes the keys in messages (`model.`)."""
    if name not in _CONFIGS:
        model, _, tag = name.partition(".")
        if model in _CONFIGS:  # timm's way
            raise ConfigError(
                f"{section}name={name!r}: the model is {model}, its weights are {section}pretrained={tag}"
            )
        near = get_close_matches(name, _CONFIGS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(_CONFIGS)}"
        )
        raise ConfigError(f"{section}name={name!r}: unknown model; {hint}")
    config = _CONFIGS[name]
    if input_size is not None:
        dims = len(config.input_size)
        given = input_size if isinstance(input_size, int) else list(input_size)
        require(
            isinstance(given, list) and len(given) == dims,
            f"{section}input_size={given}: {name} takes ({', '.join(AXES[dims])}), like {list(config.input_size)}",
        )
        check_input_size(tuple(input_size), config.unit_pixels, f"{section}input_size")
        config = replace(config, input_size=tuple(input_size))
    classes = config.num_classes if num_classes is None else num_classes
    least = 1 if section else 0  # what is trained and tested answers with classes
    require(classes >= least, f"{section}num_classes={classes}: must be {least} or more")
    return replace(
        config, num_classes=classes, drop_path_rate=drop_path_rate, head_dropout=head_dropout
    )


def default_mae(name: str) -> MaeConfig:
    """The masked autoencoder's settings that go with a name: the paper's for video, the released code's for images."""
    if "micro" in name:
        return MaeConfig(decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4)
    if len(_CONFIGS[name].input_size) == 2:
        return MaeConfig(mask_ratio=0.6, decoder_num_heads=16)
    return MaeConfig()
