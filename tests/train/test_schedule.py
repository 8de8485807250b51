"""The learning rate at literal steps."""

from __future__ import annotations

import math

import pytest

from hiera_video.train.schedule import lr_at


def rate(
    step: int, warmup: int = 10, start: float = 0.0, end: float = 1e-6, after: bool = True
) -> float:
    return lr_at(
        step,
        total_steps=100,
        warmup_steps=warmup,
        peak=1e-3,
        start=start,
        end=end,
        cosine_after_warmup=after,
    )


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    assert rate(0) == 0
    assert rate(5) == pytest.approx(5e-4)
    assert rate(10) == pytest.approx(1e-3)
    assert rate(0, start=1e-5) == 1e-5 and rate(5, start=1e-5) == pytest.approx((1e-3 + 1e-5) / 2)


def test_the_cosine_starts_after_the_warm_up_and_ends_at_the_minimum() -> None:
    assert rate(0, warmup=0) == pytest.approx(1e-3)
    assert rate(55) == pytest.approx((1e-3 + 1e-6) / 2)
    assert rate(40) == pytest.approx(1e-6 + (1e-3 - 1e-6) * (math.cos(math.pi / 3) + 1) / 2)
    assert rate(100) == pytest.approx(1e-6)
    assert all(rate(step) > rate(step + 1) for step in range(10, 99))


def test_a_cosine_over_all_steps_starts_below_the_peak() -> None:
    meeting = 1e-6 + (1e-3 - 1e-6) * (math.cos(math.pi * 0.1) + 1) / 2  # 9.756e-4
    assert rate(5, after=False) == pytest.approx(meeting / 2)
    assert rate(10, after=False) == pytest.approx(meeting)
    assert rate(50, after=False) == pytest.approx((1e-3 + 1e-6) / 2)
    assert rate(100, after=False) == pytest.approx(1e-6)


def test_a_run_that_is_all_warm_up() -> None:
    assert rate(99, warmup=100) == pytest.approx(0.99e-3)
    assert rate(100, warmup=100) == 1e-3
