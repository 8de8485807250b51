"""Warnings during training: slow loading, unreadable videos, collapse."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from hiera_video.utils.text_files import count_of

logger = logging.getLogger(__name__)
SLOW_LOADING = 0.2
"""Share of the time spent waiting for data above which a warning is logged."""
NAMED_VIDEOS = 20
"""Unreadable videos that are named; further ones are only counted."""
MIN_EFFECTIVE_RANK = 2.0
MIN_FEATURE_STD = 0.05
"""Features below either of these have collapsed; see `collapse_monitors`."""
RECOVERED_RANK = 3.0


class LoaderWatch:
    """Warns when data loading is the bottleneck, and again only after it has recovered."""

    def __init__(self) -> None:
        self._rows, self._warned = 0, False

    def observe(self, wait_share: float) -> None:
        """Check a log row's `data_wait_share`, except in the first row, which includes start-up."""
        self._rows += 1
        if self._rows > 1 and wait_share > SLOW_LOADING and not self._warned:
            logger.warning(
                "data loading is the bottleneck: the model waits for clips %.0f %% of the time; "
                "raise data.workers up to the number of CPU cores, store smaller videos, or raise "
                "clip.repeats",
                100 * wait_share,
            )
            self._warned = True
        elif wait_share < SLOW_LOADING / 2:
            self._warned = False


class UnreadableWatch:
    """Names each unreadable video of this rank once, up to `NAMED_VIDEOS` of them."""

    def __init__(self) -> None:
        self._paths: set[str] = set()

    def observe(self, substituted: Iterable[tuple[str, str]]) -> None:
        """Log the substituted videos of a step, given as (path, reason)."""
        for path, reason in substituted:
            if path in self._paths or len(self._paths) > NAMED_VIDEOS:
                continue
            self._paths.add(path)
            if len(self._paths) > NAMED_VIDEOS:
                logger.warning(
                    "more videos are unreadable and are only counted from here on; "
                    "hiera-video check-data lists them all"
                )
            else:
                logger.warning("%s: unreadable (%s); substituted by another video", path, reason)


def warn_of_left_out(numbers: Mapping[str, float]) -> None:
    """Warn if a validation is not on all of its videos, which may choose another checkpoint."""
    total = numbers.get("of", 0)
    left_out = total - numbers.get("evaluated", total)
    if left_out > 0:
        logger.warning(
            "warning: validation: %d of %s could not be read and count for nothing; "
            "hiera-video check-data --val LIST names them",
            left_out,
            count_of(int(total), "video"),
        )


class CollapseWatch:
    """Warns when the features of masked pre-training collapse, and again only after a recovery."""

    def __init__(self) -> None:
        self._warned = False

    def observe(self, step: int, numbers: Mapping[str, float]) -> None:
        """Check the averages of a log row; rows of other tasks have no `effective_rank`."""
        if "effective_rank" not in numbers:
            return
        rank, std = numbers["effective_rank"], numbers["feature_std"]
        if self._warned and rank >= RECOVERED_RANK and std >= MIN_FEATURE_STD:
            self._warned = False
            logger.info("step %d: features recover: effective_rank %.2f", step, rank)
        elif not self._warned and (rank < MIN_EFFECTIVE_RANK or std < MIN_FEATURE_STD):
            self._warned = True
            logger.warning(
                "warning: step %d: features collapse: effective_rank %.2f (limit %g), feature_std "
                "%.3f (limit %g); small models pass through this after the warm-up and need some "
                "hundred steps to recover; a run that ends in it needs more train.epochs, or "
                "mae.masking=future (still scenes), mae.variance_floor=0.05 (flat or dark "
                "pictures) or a lower mae.mask_ratio (few mask units); judge by probe_top1",
                step,
                rank,
                MIN_EFFECTIVE_RANK,
                std,
                MIN_FEATURE_STD,
            )
