"""Choose the best checkpoint of a run, and end a run that does not improve any more."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from hiera_video.errors import ConfigError
from hiera_video.train.config import TrainConfig
from hiera_video.train.state import TrainProgress
from hiera_video.utils.checks import require

logger = logging.getLogger(__name__)


def check_evaluator(evaluator: object) -> None:
    """Raise `ConfigError` if an evaluator lacks the attributes that choose a checkpoint."""
    for name in ("score", "higher_is_better"):
        require(
            hasattr(evaluator, name),
            f"{type(evaluator).__name__}: has no {name}; an evaluator needs `score`, the name of a "
            "number that it returns, and `higher_is_better`, True or False",
        )


def check_numbers(score: str, evaluator: object, numbers: object) -> dict[str, float]:
    """Return what an evaluator returned, with tensors of one number as floats.

    Raises:
        ConfigError: It is no dict of numbers, or lacks the score.
    """
    name = type(evaluator).__name__
    rule = f"an evaluator must return a dict of numbers by name, such as {{{score!r}: 50.0}}"
    if not isinstance(numbers, Mapping):
        raise ConfigError(f"{name}: returned {type(numbers).__name__}; {rule}")
    found: dict[str, float] = {}
    for key, value in numbers.items():
        try:
            found[str(key)] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{name}: returned {type(value).__name__} as {key!r}; {rule}"
            ) from error
    require(score in found, f"{name}: returned no {score!r}, its score; {rule}")
    return found


def record_score(
    progress: TrainProgress, train: TrainConfig, score: float, numbers: Mapping[str, float]
) -> bool:
    """Record a validation in `progress`, and return whether its checkpoint is the best so far.

    Args:
        progress: Of the run.
        train: `best_margin` is the margin in which a later checkpoint is the best.
        score: Higher is better; with a margin, in percent.
        numbers: Of the validation; `evaluated` is the number of videos, without which there is no
            margin.
    """
    highest = progress.best
    is_best = math.isfinite(score) and (highest is None or score > highest)
    if is_best:
        progress.best = score
    elif train.best_margin and highest is not None and "evaluated" in numbers:
        margin = train.best_margin * standard_error(highest, numbers["evaluated"])
        is_best = score >= highest - margin
    progress.since_best = 0 if is_best else progress.since_best + 1
    return is_best


def standard_error(percent: float, videos: float) -> float:
    """Return the standard error of a share of the videos, in points.

    One success and one failure are added (Laplace), so that 100 % has an error too.

    >>> round(standard_error(90.0, 96), 2), round(standard_error(100.0, 50), 2)
    (3.14, 1.9)
    """
    share = (percent / 100 * videos + 1) / (videos + 2)
    return 100 * math.sqrt(share * (1 - share) / (videos + 2))


def should_stop(progress: TrainProgress, train: TrainConfig) -> bool:
    """Return True if the last `train.early_stop` validations were no better than one before."""
    return train.early_stop is not None and progress.since_best >= train.early_stop


def log_stop(progress: TrainProgress) -> None:
    """Log that the run stops early, and which checkpoint remains."""
    logger.info(
        "stopped early after step %d: the last %d validations were no better; checkpoints/best "
        "is the best of all",
        progress.step,
        progress.since_best,
    )
