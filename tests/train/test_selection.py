"""Which checkpoint is the best, and when a run stops."""

from __future__ import annotations

import pytest

from hiera_video.errors import ConfigError
from hiera_video.train.config import TrainConfig
from hiera_video.train.selection import record_score, should_stop
from hiera_video.train.state import TrainProgress


def chosen(scores: list[float], videos: int, **settings: float) -> tuple[int, TrainProgress]:
    """Return the number of the validation whose checkpoint is the best, and the progress."""
    progress, train = TrainProgress(), TrainConfig(**settings)  # type: ignore[arg-type]
    best = [
        number
        for number, score in enumerate(scores)
        if record_score(progress, train, score, videos=videos)
    ]
    return best[-1], progress


def test_the_first_highest_score_is_the_best() -> None:
    number, progress = chosen([60.0, 90.0, 88.0, 90.0, float("nan")], 96)
    assert (number, progress.best, progress.since_best) == (1, 90.0, 3)


def test_within_the_margin_the_latest_is_the_best() -> None:
    # of 96 videos, 90 % has a standard error of 3.2 points
    number, progress = chosen([60.0, 90.0, 86.9, 86.7, float("nan")], 96, best_margin=1)
    assert (number, progress.best, progress.since_best) == (2, 90.0, 2)
    assert chosen([90.0, 88.0, 86.9, 84.0], 96, best_margin=1)[0] == 2  # it does not slide down
    assert chosen([90.0, 83.8, 83.6], 96, best_margin=2)[0] == 1
    assert chosen([90.0, 88.0], 960, best_margin=1)[0] == 0  # of more videos, it is smaller
    assert chosen([100.0, 98.5], 50, best_margin=1)[0] == 1  # also at 100 %


def test_a_run_that_stays_within_the_margin_does_not_stop() -> None:
    scores = [90.0, 88.0, 89.0, 87.5]
    margin, none = TrainConfig(early_stop=3, best_margin=1), TrainConfig(early_stop=3)
    assert not should_stop(chosen(scores, 96, best_margin=1)[1], margin)
    assert should_stop(chosen(scores, 96)[1], none)


@pytest.mark.parametrize("values", [{"best_margin": -1.0}, {"task": "pretrain", "best_margin": 1}])
def test_invalid_margins(values: dict[str, object]) -> None:
    words = (
        f"train.best_margin={values['best_margin']}: must be 0 or more, and 0 for "
        "train.task=pretrain, whose score is a loss"
    )
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**values)  # type: ignore[arg-type]
