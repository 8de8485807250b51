"""Model names and the configuration behind each, and the `model` and `mae` config sections.

Needs no torch, so a wrong name or input size fails at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from hiera_video.errors import ConfigError
from hiera_video.models.layout import AXES, HieraConfig, check_input_size
from hiera_video.models.mvit.config import ladder_configs
from hiera_video.models.vit.config import VIT_DECODERS, vit_configs
from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The `model` section: architecture and weights."""

    name: str
    """A name of `list_models()`; `mae_…` names need train.task=pretrain."""
    input_size: tuple[int, ...] | None = None
    """(frames, height, width), or (height, width) for an image model; the name's own if unset."""
    num_classes: int | None = None
    """Outputs of the head; the manifest's class count if unset."""
    pretrained: str | None = None
    """Run folder, file, `hf-hub:owner/name`, or published tag; `none` trains from scratch."""
    drop_path_rate: float = 0.0
    """Stochastic depth rate of the last block."""
    head_dropout: float = 0.0
    """Dropout before the classifier."""
    checkpointing: bool = False
    """Recompute each block in the backward pass: far less memory for about a third more time."""

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
    """The `mae` section: masking, decoder and target of the masked autoencoder.

    The defaults are the paper's video recipe (arXiv 2306.00989, table 11a).
    """

    mask_ratio: float = 0.9
    """Share of mask units that are hidden (paper: 0.9 for video, 0.6 for images)."""
    decoder_embed_dim: int = 512
    """Channels of the decoder."""
    decoder_depth: int = 8
    """Blocks of the decoder."""
    decoder_num_heads: int = 8
    """Attention heads of the decoder (paper, table 11a: 8 for video). Weights made with another
    number have the same shapes, so a state dict alone does not reveal a mismatch."""
    multi_scale: bool = True
    """Decode the fused maps of all stages (the paper); else the last stage's alone, as in a plain
    ViT."""
    masking: Literal["random", "tube", "future"] = "random"
    """Units that are hidden: any in space and time (the paper), the same places in every frame
    (VideoMAE, which rounds the number of hidden places down), or the last frames of the clip (as
    SiamMAE hides the future, arXiv 2305.14344), which is not random and requires the model to
    extrapolate motion."""
    target: Literal["pixels", "hog"] = "pixels"
    """Prediction target: normalised pixels, or histograms of oriented gradients (MaskFeat's, as
    PySlowFast computes them)."""
    target_frames: Literal["first", "all"] = "first"
    """Frames of each token to predict: the first (the paper), or all (VideoMAE)."""
    variance_floor: float = 1e-6
    """Added to the variance of each patch's pixels, after normalisation of the colours, before the
    patch is divided by its deviation (paper: 1e-6). For clips with flat areas, such as generated
    or very dark ones, 0.01 to 0.1 keeps compression noise out of the target."""
    decoder_tokens: Literal["all", "running_cell", "random"] = "all"
    """Hidden tokens to decode: all (the paper), or a share of them: at places that move round each
    unit, from a random phase in each clip (VideoMAE V2's running cell), or anywhere."""
    decoder_share: float = 0.5
    """Share of hidden tokens to decode; unused with decoder_tokens=all."""

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
        require(
            0 < self.variance_floor < math.inf,
            f"mae.variance_floor={self.variance_floor}: must be above 0 and finite",
        )
        hints = get_type_hints(MaeConfig)
        for name in ("masking", "target", "target_frames", "decoder_tokens"):
            value, choices = getattr(self, name), get_args(hints[name])
            require(value in choices, f"mae.{name}={value!r}: choose one of {', '.join(choices)}")


def check_mask_ratio(ratio: float, key: str = "mask_ratio") -> None:
    """Raise `ConfigError` unless `ratio` is between 0 and 1; `key` names it in the message."""
    require(
        0 < ratio < 1,
        f"{key}={ratio}: must be above 0 and below 1: some units hidden, some visible",
    )


def num_visible(units: int, mask_ratio: float, *, floor_hidden: bool = False) -> int:
    """Return how many of `units` stay visible at a mask ratio.

    >>> num_visible(392, 0.9), num_visible(49, 0.9), num_visible(49, 0.9, floor_hidden=True)
    (39, 4, 5)

    Args:
        units: Mask units, or groups of units that are hidden together.
        mask_ratio: Share of them to hide.
        floor_hidden: Round the number of hidden units down (VideoMAE's tubes) instead of the
            visible ones (Hiera).

    Raises:
        ConfigError: If no unit would be visible, or none hidden.
    """
    check_mask_ratio(mask_ratio)
    if floor_hidden:
        visible = units - int(mask_ratio * units)
    else:
        visible = int(units * (1 - mask_ratio) + 1e-6)  # 10 * (1 - 0.9) is 0.9999…
    require(
        0 < visible < units,
        f"mask_ratio={mask_ratio}: keeps {visible} of {units} units; "
        f"choose a ratio between {1 / units:.3g} and {1 - 1 / units:.3g}",
    )
    return visible


# Table 2 of the paper (arXiv 2306.00989): channels and heads of stage 1, blocks of each stage.
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

# Small enough to learn motion on two CPU cores in minutes. Its second stage is global: the first
# block of a stage attends as the stage before, so with one block in the last stage a global third
# stage would have no global block, and time would never be mixed. The head starts at full scale:
# scaled by 0.001, as in the large sizes, it stays near chance for 200 steps.
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
    # autoencoders pool one time less, so a hidden unit is predicted as 2x2 tokens
    autoencoders = {
        f"mae_{name}": replace(config, q_pool=config.q_pool - 1, init="xavier")
        for name, config in classifiers.items()
    }
    return classifiers | autoencoders


_HIERAS = _all_names()
_CONFIGS: dict[str, HieraConfig] = {
    **_HIERAS,
    **ladder_configs(_HIERAS),
    **vit_configs(),
}


def list_names() -> tuple[str, ...]:
    """Return every model name: Hiera's, then those of the ladder, then the plain ViT's."""
    return tuple(_CONFIGS)


def is_mae(name: str) -> bool:
    """Return True if `name` is a masked autoencoder."""
    return name.startswith("mae_")


def config_for(
    name: str,
    *,
    input_size: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    head_dropout: float = 0.0,
    section: str = "",
) -> HieraConfig:
    """Return the configuration of a model name, with changes.

    Args:
        name: A name of `list_names()`.
        input_size: (frames, height, width) or (height, width); the name's own by default.
        num_classes: Outputs of the head; the name's own by default.
        in_chans: Channels of the input.
        drop_path_rate: Stochastic depth rate of the last block.
        head_dropout: Dropout before the classifier.
        section: Prefix of the keys in messages, such as `model.`.

    Raises:
        ConfigError: If the name is unknown (with the nearest names) or a value is out of range.
        InputSizeError: If the size is not a multiple of a mask unit (with the nearest valid sizes).
    """
    if name not in _CONFIGS:
        model, _, tag = name.partition(".")
        if model in _CONFIGS:  # as timm writes it
            raise ConfigError(
                f"{section}name={name!r}: use {section}name={model} with {section}pretrained={tag}"
            )
        near = get_close_matches(name, _CONFIGS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"choose one of {', '.join(_HIERAS)}, or a name of docs/models.md"
        )
        raise ConfigError(f"{section}name={name!r}: unknown model; {hint}")
    config = _CONFIGS[name]
    if input_size is not None:
        dims = len(config.input_size)
        given = input_size if isinstance(input_size, int) else list(input_size)
        require(
            isinstance(given, list) and len(given) == dims,
            f"{section}input_size={given}: {name} takes ({', '.join(AXES[dims])}), such as "
            f"{list(config.input_size)}",
        )
        check_input_size(tuple(input_size), config.unit_pixels, f"{section}input_size")
        config = replace(config, input_size=tuple(input_size))
    classes = config.num_classes if num_classes is None else num_classes
    least = 1 if section else 0  # runs need a classifier; the Python API allows features alone
    require(classes >= least, f"{section}num_classes={classes}: must be {least} or more")
    return replace(
        config,
        num_classes=classes,
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        head_dropout=head_dropout,
    )


def name_of(config: HieraConfig) -> str | None:
    """Return the classifier's name whose configuration is `config` but for what options change."""
    options = ("input_size", "num_classes", "drop_path_rate", "head_dropout", "init")
    values = {key: getattr(config, key) for key in (*options, "head_init_scale")}
    for name, known in _CONFIGS.items():
        same_axes = len(known.input_size) == len(config.input_size)
        if not is_mae(name) and same_axes and replace(known, **values) == config:
            return name
    return None


def default_mae(name: str) -> MaeConfig:
    """Return the default settings: the papers' for video, the authors' code's for images."""
    if name.startswith("mae_vit_"):
        is_st = name.startswith("mae_vit_st_")
        size = "micro" if "micro" in name else name.split("_")[2]
        width, depth, heads = VIT_DECODERS[size]
        return MaeConfig(
            mask_ratio=0.75 if "micro" in name else 0.9,
            decoder_embed_dim=width,
            decoder_depth=depth,
            decoder_num_heads=heads,
            masking="random" if is_st else "tube",
            target_frames="first" if is_st else "all",
        )
    if "micro" in name:
        return MaeConfig(decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4)
    if len(_CONFIGS[name].input_size) == 2:
        return MaeConfig(mask_ratio=0.6, decoder_num_heads=16)
    return MaeConfig()
