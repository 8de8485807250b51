"""The configs against the paper's tables 11–13, transcribed here independently."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.models.registry import MaeConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def recipe(name: str) -> Config:
    return load_config(CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize(
    # layer decay after 3200 epochs of pre-training; effective epochs = epochs × repeats
    ("name", "model", "lr", "effective_epochs", "drop_path", "dropout", "layer_decay"),
    [
        ("k400_hiera_b", "hiera_base_16x224", 8e-4, 150, 0.2, 0.3, 0.8),
        ("k400_hiera_bp", "hiera_base_plus_16x224", 8e-4, 150, 0.2, 0.3, 0.8),
        ("k400_hiera_l", "hiera_large_16x224", 8e-4, 100, 0.2, 0.5, 0.875),
        ("k400_hiera_h", "hiera_huge_16x224", 4e-4, 100, 0.3, 0.5, 0.875),
        ("k600_hiera_l", "hiera_large_16x224", 8e-4, 100, 0.2, 0.5, 0.875),
        ("k700_hiera_h", "hiera_huge_16x224", 4e-4, 100, 0.3, 0.5, 0.875),
        ("k400_hiera_t", "hiera_tiny_16x224", 8e-4, 150, 0.1, 0.3, 0.8),
        ("k400_hiera_s", "hiera_small_16x224", 8e-4, 150, 0.1, 0.3, 0.8),
    ],
)
def test_fine_tuning_on_kinetics(
    name: str,
    model: str,
    lr: float,
    effective_epochs: int,
    drop_path: float,
    dropout: float,
    layer_decay: float,
) -> None:
    config = recipe(name)
    optim, augment, clip = config.optim, config.augment, config.clip
    assert (config.model.name, config.model.drop_path_rate, config.model.head_dropout) == (
        model,
        drop_path,
        dropout,
    )
    assert (optim.name, optim.lr, optim.betas, optim.weight_decay) == (
        "adamw",
        lr,
        (0.9, 0.999),
        0.05,
    )
    assert (optim.layer_decay, optim.clip_grad) == (layer_decay, 5.0)
    assert config.train.epochs * clip.repeats == effective_epochs and clip.repeats == 2
    assert optim.warmup_epochs * clip.repeats == 10
    assert (config.train.batch_size, clip.num_frames, clip.frame_stride, clip.target_fps) == (
        256,
        16,
        4,
        30.0,
    )
    assert (augment.rand_augment, augment.mixup, augment.cutmix) == (7, 0.8, 1.0)
    assert (augment.label_smoothing, augment.erase, augment.flip, augment.scale) == (
        0.1,
        0.25,
        0.5,
        (0.08, 1.0),
    )
    assert (config.test.clips, config.test.crops) == (5, 3)
    assert config.model.num_classes == int(name[1:4]) and config.model.pretrained is None


@pytest.mark.parametrize(
    ("name", "lr", "drop_path"),
    [
        ("k400_hiera_b_mae", 8e-4, 0.1),
        ("k400_hiera_bp_mae", 8e-4, 0.2),
        ("k400_hiera_l_mae", 8e-4, 0.2),
        ("k400_hiera_h_mae", 3.2e-4, 0.4),
        ("k600_hiera_l_mae", 8e-4, 0.2),
        ("k700_hiera_h_mae", 3.2e-4, 0.4),
        ("k400_hiera_t_mae", 8e-4, 0.1),
        ("k400_hiera_s_mae", 8e-4, 0.1),
    ],
)
def test_pre_training_on_kinetics(name: str, lr: float, drop_path: float) -> None:
    config = recipe(name)
    optim, mae, clip = config.optim, config.mae, config.clip
    assert (optim.lr, optim.betas, optim.weight_decay, optim.clip_grad) == (
        lr,
        (0.9, 0.95),
        0.05,
        0.02,
    )
    assert optim.min_lr == optim.warmup_lr == pytest.approx(lr / 100)
    assert config.train.epochs * clip.repeats == 3200 and optim.warmup_epochs * clip.repeats == 120
    assert (mae.mask_ratio, mae.decoder_embed_dim, mae.decoder_depth, mae.decoder_num_heads) == (
        0.9,
        512,
        8,
        8,
    )
    assert (config.train.batch_size, clip.repeats, config.model.drop_path_rate) == (
        512,
        4,
        drop_path,
    )
    assert (config.augment.scale, config.augment.flip, config.augment.rand_augment) == (
        (0.5, 1.0),
        0.5,
        0.0,
    )


@pytest.mark.parametrize(
    ("name", "frames", "lr", "batch", "drop_path", "mixup", "cutmix", "smoothing"),
    [
        ("ssv2_hiera_l", 16, 0.16, 256, 0.1, 0.8, 1.0, 0.1),
        ("ssv2_hiera_l_32", 32, 0.08, 128, 0.2, 0.0, 0.0, 0.0),
    ],
)
def test_something_something(
    name: str,
    frames: int,
    lr: float,
    batch: int,
    drop_path: float,
    mixup: float,
    cutmix: float,
    smoothing: float,
) -> None:
    config = recipe(name)
    optim, augment = config.optim, config.augment
    assert config.input_size == (frames, 224, 224)
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", lr, 0.9, 1e-4)
    assert (optim.layer_decay, optim.warmup_epochs, config.train.epochs) == (0.875, 3, 40)
    assert (config.train.batch_size, config.model.drop_path_rate, config.model.head_dropout) == (
        batch,
        drop_path,
        0.5,
    )
    assert (augment.mixup, augment.cutmix, augment.label_smoothing, augment.rand_augment) == (
        mixup,
        cutmix,
        smoothing,
        7,
    )
    assert (augment.flip, augment.erase, config.clip.sampling) == (0.0, 0.25, "segments")


@pytest.mark.parametrize(("name", "size"), [("ava_hiera_l", "large"), ("ava_hiera_h", "huge")])
def test_action_detection_on_ava(name: str, size: str) -> None:
    """Table 13; PySlowFast's boxes, crops and frames."""
    config = recipe(name)
    model, optim, train, detect = config.model, config.optim, config.train, config.detect
    assert (model.name, model.num_classes) == (f"hiera_{size}_16x224", 80)
    assert (model.drop_path_rate, model.head_dropout, model.pretrained) == (0.4, 0.5, None)
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 3.6, 0.9, 1e-8)
    assert (optim.layer_decay, optim.warmup_epochs, optim.clip_grad) == (0.875, 5, None)
    assert (train.task, train.epochs, train.batch_size) == ("detect", 30, 128)
    assert config.clip.repeats == 1
    assert (config.clip.num_frames, config.clip.frame_stride, config.clip.target_fps) == (16, 4, 30)
    assert (config.augment.short_side, config.augment.flip) == ((256, 320), 0.5)
    assert (detect.min_score, detect.start_seconds, config.test.crops) == (0.8, 900, 1)


def test_the_fallback_of_action_detection() -> None:
    """The published recipe of a ViT-L."""
    config = recipe("ava_hiera_l_adamw")
    optim = config.optim
    assert (optim.name, optim.lr, optim.weight_decay, optim.layer_decay) == (
        "adamw",
        5e-4,
        0.05,
        0.8,
    )
    assert (config.train.epochs, config.train.batch_size) == (20, 128)
    assert (config.model.drop_path_rate, config.augment.box_jitter) == (0.2, 0.1)
    assert (config.detect.train_boxes, config.detect.min_score) == (None, 0.8)


def test_pre_training_on_something_something() -> None:
    config = recipe("ssv2_hiera_l_mae")
    assert config.train.epochs * config.clip.repeats == 1600 and config.train.batch_size == 1024
    assert config.optim.warmup_epochs * config.clip.repeats == 30 and config.optim.clip_grad == 0.02
    assert (
        config.augment.flip == 0
        and config.augment.scale == (0.5, 1.0)
        and config.model.drop_path_rate == 0.2
    )


def test_videomae_on_kinetics() -> None:
    """VideoMAE's scripts of ViT-B for 1600 epochs, with the defaults of its code."""
    mae, fine = recipe("k400_vit_b_mae"), recipe("k400_vit_b")
    assert (mae.model.name, mae.mae) == (
        "mae_vit_base_16x224",
        MaeConfig(
            mask_ratio=0.9,
            masking="tube",
            target_frames="all",
            decoder_embed_dim=384,
            decoder_depth=4,
            decoder_num_heads=6,
        ),
    )
    optim = mae.optim
    assert (optim.lr, optim.min_lr, optim.warmup_lr, optim.betas, optim.weight_decay) == (
        *(1.5e-4 * 2048 / 256, 1e-5 * 2048 / 256, 0.0, (0.9, 0.95), 0.05),
    )
    assert (optim.clip_grad, optim.warmup_epochs, mae.train.epochs) == (None, 40, 1600)
    assert (mae.train.batch_size, mae.clip.repeats, mae.augment.flip) == (2048, 1, 0.0)
    assert (fine.model.name, fine.model.drop_path_rate, fine.model.head_dropout) == (
        *("vit_base_16x224", 0.1, 0.0),
    )
    optim = fine.optim
    assert (optim.lr, optim.min_lr, optim.layer_decay, optim.clip_grad) == (
        *(5e-4 * 384 / 256, 1e-6 * 384 / 256, 0.75, None),
    )
    assert (optim.warmup_epochs, fine.train.epochs, fine.train.batch_size) == (5, 75, 384)
    assert fine.clip.repeats == 2 and (fine.test.clips, fine.test.crops) == (5, 3)
    for config in (mae, fine):
        assert config.augment.mean == (0.485, 0.456, 0.406)
        assert config.augment.std == (0.229, 0.224, 0.225)
        assert (config.clip.num_frames, config.clip.frame_stride, config.clip.target_fps) == (
            *(16, 4, None),
        )
