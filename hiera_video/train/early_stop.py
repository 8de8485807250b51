"""Early stopping: a run ends when its validation has not improved for some time."""

from __future__ import annotations

import logging

from hiera_video.train.config import TrainConfig
from hiera_video.train.state import TrainProgress

logger = logging.getLogger(__name__)


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
