"""The learning rate, held to literal numbers."""

from __future__ import annotations

import math

import pytest

from hiera_video.train.schedule import lr_at


def rate(step: int, warmup: int = 10, start: float = 0.0, end: float = 1e-6) -> float:
    return lr_at(step, total_steps=100, warmup_steps=warmup, peak=1e-3, start=start, end=end)


def test_warm_up_is_linear_and_meets_the_cosine() -> None:
    meeting = 1e-6 + (1e-3 - 1e-6) * (math.cos(math.pi * 0.1) + 1) / 2  # 9.756e-4
    assert rate(0) == 0
    assert rate(5) == pytest.approx(meeting / 2)
    assert rate(10) == pytest.approx(meeting)
    assert rate(0, start=1e-5) == 1e-5


def test_cosine_is_half_way_in_the_middle_and_ends_at_the_floor() -> None:
    assert rate(0, warmup=0) == pytest.approx(1e-3)
    assert rate(50) == pytest.approx((1e-3 + 1e-6) / 2)
    assert rate(100) == pytest.approx(1e-6)
    assert all(rate(step) > rate(step + 1) for step in range(10, 99))
