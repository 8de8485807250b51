"""Time of loading is counted in exactly one stage, and only while a stopwatch is active."""

from __future__ import annotations

import random
from itertools import count

import numpy as np
import pytest

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.utils.profiler import STAGES, Stopwatch, stage


def test_a_nested_stage_is_not_counted_in_the_outer_one() -> None:
    ticks = count()
    with Stopwatch(clock=lambda: float(next(ticks))) as stopwatch:
        with stage("open"):  # 0 to 1
            pass
        with stage("decode"), stage("convert"):  # decode 2 to 3, convert 3 to 4, decode 4 to 5
            pass
        with (
            pytest.raises(ValueError, match="an error"),
            stage("crop"),
        ):  # 6 to 7, in spite of the error
            raise ValueError("an error")
    assert stopwatch.seconds == {
        **dict.fromkeys(STAGES, 0.0),
        "open": 1.0,
        "decode": 2.0,
        "convert": 1.0,
        "crop": 1.0,
    }


def test_nothing_is_timed_without_an_active_stopwatch() -> None:
    stopwatch = Stopwatch()
    with stage("open"):
        pass
    with stopwatch:
        pass
    with stage("open"):
        pass
    assert not any(stopwatch.seconds.values())


@pytest.mark.parametrize("device", ["worker", "model"])
def test_a_transform_reports_its_stages(device: str) -> None:
    transform = TrainTransform(AugmentConfig(rand_augment=7, device=device), 32)
    with Stopwatch() as stopwatch:
        for seed in range(3):
            transform(np.zeros((4, 48, 64, 3), np.uint8), random.Random(seed))
    assert {name for name, seconds in stopwatch.seconds.items() if seconds} == {"augment", "crop"}
