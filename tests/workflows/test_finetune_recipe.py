"""Recipes of `finetune`: what is trained, and for how long, as literals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hiera_video.models.registry import config_for
from hiera_video.workflows.finetune_recipe import (
    Device,
    Recipe,
    SetFacts,
    Weights,
    choose_recipe,
    clip_bytes,
)

MICRO, BASE = config_for("hiera_micro_16x32"), config_for("hiera_base_16x224")
CPU = Device(is_gpu=False, memory_bytes=16 << 30)
FACTS = SetFacts(videos=40, class_sizes=(5,) * 8, named=True, multi_label=False, validated=False)


def of_size(typical: int) -> SetFacts:
    return replace(FACTS, videos=8 * typical, class_sizes=(typical,) * 8, validated=True)


def test_five_videos_a_class_after_masked_pretraining() -> None:
    recipe = choose_recipe(FACTS, "encoder", MICRO, CPU)
    assert recipe.keys["optim"] == {
        "lr": 4e-3,
        "layer_decay": 0.6,
        "lr_for_batch": 16,
        "warmup_epochs": 5.0,
        "clip_grad": 1.0,
    }
    assert recipe.keys["train"] == {
        "batch_size": 10,
        "epochs": 50,
        "eval_every": 2,
        "save_every": 2,
        "ema": 0.9,
    }
    assert dict(recipe.reasons) == {
        "weights": "of masked pre-training: all layers are trained, with layer decay 0.6",
        "length": "50 epochs of 4 steps with 10 videos; the mean of the last 10 steps' weights is "
        "kept",
        "stop": "at the end: of so few videos, none are held out to choose a checkpoint",
    }


@pytest.mark.parametrize(
    ("typical", "optim", "freeze"),
    [
        (10, {"lr": 4e-3}, ["patch_embed", "pos_embed", "blocks:24"]),
        (50, {"lr": 2e-4, "layer_decay": 0.75}, ["patch_embed", "pos_embed", "blocks:5"]),
        (500, {"lr": 2e-4, "layer_decay": 0.75}, None),
        (501, {"lr": 2e-4, "layer_decay": 0.85}, None),
    ],
)
def test_more_videos_train_more_of_a_classifier(
    typical: int, optim: dict[str, Any], freeze: list[str] | None
) -> None:
    keys = choose_recipe(of_size(typical), "classifier", BASE, CPU).keys
    assert {name: keys["optim"].get(name) for name in optim} == optim
    assert keys["train"].get("freeze") == freeze


@pytest.mark.parametrize(("weights", "lr"), [("none", 1e-4), ("encoder", 4e-4)])
def test_nothing_is_frozen_from_other_weights(weights: Weights, lr: float) -> None:
    keys = choose_recipe(of_size(5), weights, BASE, CPU).keys
    assert "freeze" not in keys["train"] and keys["optim"]["lr"] == lr


def test_the_number_of_steps_is_limited() -> None:
    train = choose_recipe(of_size(5000), "none", BASE, CPU).keys["train"]
    assert (train["batch_size"], train["epochs"], train["eval_every"]) == (16, 5, 1)
    train = choose_recipe(of_size(100), "none", BASE, CPU).keys["train"]
    assert (train["epochs"], train["eval_every"], train["early_stop"]) == (40, 2, 10)
    assert train["best_margin"] == 1.0
    assert train["ema"] == 0.99


def test_the_users_length_and_batch_are_taken() -> None:
    keys = choose_recipe(FACTS, "none", MICRO, CPU, batch=4, epochs=30).keys
    assert (keys["train"]["batch_size"], keys["train"]["epochs"]) == (4, 30)
    assert keys["optim"]["warmup_epochs"] == 3.0 and keys["train"]["ema"] == 0.9333


def test_unbalanced_classes_are_sampled_equally() -> None:
    facts = replace(FACTS, class_sizes=(31, 10))

    def of(facts: SetFacts) -> Recipe:
        return choose_recipe(facts, "none", MICRO, CPU)

    assert of(facts).keys["train"]["balanced_sampling"] is True
    assert ("classes", "10 to 31 videos each: train.balanced_sampling") in of(facts).reasons
    assert "balanced_sampling" not in of(replace(FACTS, class_sizes=(30, 10))).keys["train"]
    assert of(replace(facts, multi_label=True)).keys["train"]["weighted_loss"] is True


def test_classes_without_names_are_never_mirrored() -> None:
    assert choose_recipe(FACTS, "none", MICRO, CPU).keys["augment"]["flip"] == 0.5
    unnamed = replace(FACTS, named=False)
    assert choose_recipe(unnamed, "none", MICRO, CPU).keys["augment"]["flip"] == 0.0


def test_a_small_model_is_augmented_little_from_scratch() -> None:
    recipe = choose_recipe(FACTS, "none", MICRO, CPU)
    little = {"scale": [0.7, 1.0], "color_jitter": 0.0, "label_smoothing": 0.0}
    assert recipe.keys["augment"].items() >= little.items()
    assert any("little augmentation" in text for _, text in recipe.reasons)
    usual = (choose_recipe(FACTS, "encoder", MICRO, CPU), choose_recipe(FACTS, "none", BASE, CPU))
    for recipe in usual:
        assert recipe.keys["augment"]["color_jitter"] == 0.4
        assert not any("little augmentation" in text for _, text in recipe.reasons)


def test_the_batch_is_divided_by_memory() -> None:
    assert 2.0e9 < clip_bytes(BASE) < 2.2e9
    small = Device(is_gpu=False, memory_bytes=8 << 30)
    recipe = choose_recipe(of_size(10), "none", BASE, small)
    assert recipe.keys["train"]["accumulate"] == 8
    assert ("memory", "8 micro-batches of 2 videos") in recipe.reasons
    assert "accumulate" not in choose_recipe(of_size(10), "none", MICRO, small).keys["train"]
    gpu = choose_recipe(of_size(10), "none", BASE, Device(is_gpu=True, memory_bytes=0))
    assert gpu.keys["train"]["fit_memory"] is True and gpu.keys["train"]["batch_size"] == 20
