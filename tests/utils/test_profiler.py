"""Each moment of loading is charged to one stage, and only while somebody watches."""

from __future__ import annotations

import random
from itertools import count

import numpy as np
import pytest

from hiera_video.data.config import AugmentConfig
from hiera_video.data.transforms.train_eval import TrainTransform
from hiera_video.utils.profiler import STAGES, Stopwatch, stage


def test_an_inner_stage_counts_for_itself_alone() -> None:
    ticks = count()
    with Stopwatch(clock=lambda: float(next(ticks))) as watch:
        with stage("open"):  # 0 to 1
            pass
        with stage("decode"), stage("convert"):  # 2 to 3, 3 to 4, and again decode to 5
            pass
        with (
            pytest.raises(ValueError, match="broken"),
            stage("crop"),
        ):  # 6 to 7, whatever happens in it
            raise ValueError("broken")
    assert watch.seconds == {
        **dict.fromkeys(STAGES, 0.0),
        "open": 1.0,
        "decode": 2.0,
        "convert": 1.0,
        "crop": 1.0,
    }


def test_nothing_is_timed_while_nobody_watches() -> None:
    watch = Stopwatch()
    with stage("open"):
        pass
    with watch:
        pass
    with stage("open"):
        pass
    assert not any(watch.seconds.values())


@pytest.mark.parametrize("device", ["worker", "model"])
def test_a_transform_reports_its_stages(device: str) -> None:
    transform = TrainTransform(AugmentConfig(rand_augment=7, device=device), 32)
    with Stopwatch() as watch:
        for seed in range(3):
            transform(np.zeros((4, 48, 64, 3), np.uint8), random.Random(seed))
    assert {name for name, seconds in watch.seconds.items() if seconds} == {"augment", "crop"}
