"""Batches of training clips and of test views, the same for any number of workers, processes and restarts.

`BatchPlan` says which video of which epoch stands where in which step: arithmetic, so that resuming is one integer.
The loaders below only carry the plan out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from hiera_video.data.dataset import TestViews, TrainClips, UnreadableVideo, VideoViews
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen
from hiera_video.data.manifest.record import Label, as_tuple
from hiera_video.data.transforms.on_device import Finishing, together
from hiera_video.errors import ConfigError
from hiera_video.utils.profiler import stage

Slot = tuple[int, int, int]
"""(epoch, index of the record, position of the video in the step's global batch)."""


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """One micro-batch of this process. The first dimension is B = videos × repeats, the repeats of a video together."""

    clips: Tensor
    """float32 [B, 3, T, S, S]; while `finishing` is there, the bytes that it takes."""
    labels: Tensor
    """Class indices int64 [B]; multi-hot float32 [B, K] where the manifest is multi-label. 0 where a record has none."""
    row: Tensor
    """int64 [B], manifest row of the video."""
    view: Tensor
    """int64 [B], which of the video's repeats this is."""
    position: Tensor
    """int64 [B], place in the step's global batch of `batch_size * repeats` samples, whatever the world size."""
    substituted: tuple[tuple[str, str], ...]
    """(path, reason) of each broken video that another one stands in for."""
    finishing: Finishing | None = None
    """What `to` has still to do to the clips (`augment.device=model`)."""

    def to(self, device: torch.device) -> ClipBatch:
        """What the model needs moves, and is finished there; the numbers that seeds are made of stay on the CPU."""
        clips = self.clips.to(device, non_blocking=True)
        return replace(
            self,
            clips=self.finishing(clips) if self.finishing else clips,
            labels=self.labels.to(device, non_blocking=True),
            finishing=None,
        )


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which videos each micro-batch holds.

    The global batch of a step is B videos at positions 0 … B-1. Mixup's partner is the batch reversed: position p goes
    with B-1-p. So each of the world x accumulate chunks takes a stretch from the front and its mirror from the back:

        B = 8, 2 chunks    chunk 0: 0 1 | 6 7    chunk 1: 2 3 | 4 5         reversing a chunk reverses the whole
    """

    num_records: int
    """Videos in the manifest."""
    batch_size: int
    """Videos of one optimizer step, over all processes and micro-batches."""
    seed: int
    world: int = 1
    """Processes."""
    rank: int = 0
    """Which of them this is."""
    accumulate: int = 1
    """Micro-batches of each process in one step."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "world"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{_key(name)}={getattr(self, name)}: must be 1 or more")
        if not 0 <= self.rank < self.world:
            raise ConfigError(
                f"rank {self.rank} of {self.world} processes: must be 0 to {self.world - 1}"
            )
        if self.num_records < self.batch_size:
            raise ConfigError(
                f"train.batch_size={self.batch_size}: the manifest has {self.num_records} videos, not enough for one "
                "step; lower train.batch_size"
            )
        chunks = self.world * self.accumulate
        if self.batch_size % chunks or (chunks > 1 and self.batch_size // chunks % 2):
            raise ConfigError(
                f"train.batch_size={self.batch_size}: {self.world} processes x train.accumulate={self.accumulate} need "
                f"a multiple of {2 * chunks}, so that each part holds mixup's pairs; set it to one, "
                f"{max(self.batch_size // (2 * chunks), 1) * 2 * chunks} for example"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass; the videos that are left over are others in each pass."""
        return self.num_records // self.batch_size

    def micro_batches(self, step: int) -> list[list[Slot]]:
        """This process's micro-batches of a step (counted over all epochs), in order."""
        epoch, number = divmod(step, self.steps_per_epoch)
        start = number * self.batch_size
        order = _epoch_order(self.num_records, self.seed, epoch)
        return [
            [(epoch, order[start + position], position) for position in self._positions(chunk)]
            for chunk in range(self.rank * self.accumulate, (self.rank + 1) * self.accumulate)
        ]

    def _positions(self, chunk: int) -> list[int]:
        chunks = self.world * self.accumulate
        if chunks == 1:
            return list(range(self.batch_size))  # may be odd: the middle video is its own partner
        half = self.batch_size // chunks // 2
        front = range(chunk * half, (chunk + 1) * half)
        return [*front, *(self.batch_size - 1 - position for position in reversed(front))]


def _key(name: str) -> str:
    return name if name == "world" else f"train.{name}"


@lru_cache(maxsize=2)
def _epoch_order(num_records: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_records))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)


# -- loaders -----------------------------------------------------------------------------------------------------------


def train_loader(
    dataset: TrainClips,
    plan: BatchPlan,
    *,
    first_step: int,
    last_step: int,
    workers: int,
    context: str | None = None,
) -> Iterator[list[ClipBatch]]:
    """The micro-batches of steps `first_step` to `last_step - 1`, one step at a time; close it to end its workers.

    One set of workers lives for the whole run, watched as `dataset.quarantine` says (see `pool`). `context`: fork, spawn or
    forkserver, the system's default where unset. Raises what the data raise: `DecodeError`, `ConfigError`.
    """
    micro_batches = (
        slots for step in range(first_step, last_step) for slots in plan.micro_batches(step)
    )
    step: list[ClipBatch] = []
    for batch in map_videos(
        _TrainBatch(dataset),
        micro_batches,
        workers=workers,
        quarantine=dataset.quarantine,
        context=context,
    ):
        step.append(batch)
        if len(step) == plan.accumulate:
            yield step
            step = []


def test_loader(
    dataset: TestViews, *, workers: int, rows: Sequence[int], context: str | None = None
) -> Iterator[VideoViews | UnreadableVideo]:
    """`dataset[i]` for each i of `rows`, in that order. Raises `ConfigError` where a video is too short for the clip
    and `clip.short_videos=error`."""
    yield from map_videos(
        dataset.views, rows, workers=workers, quarantine=dataset.quarantine, context=context
    )


test_loader.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest reads into the name


class _TrainBatch:
    """Slots of one micro-batch → `ClipBatch`."""

    def __init__(self, dataset: TrainClips) -> None:
        self.dataset = dataset

    def __call__(self, slots: Sequence[Slot], opening: OnOpen) -> ClipBatch:
        videos = [
            (self.dataset.samples(epoch, index, opening), position)
            for epoch, index, position in slots
        ]
        repeats = len(videos[0][0].clips)
        each = [
            (video, position, repeat) for video, position in videos for repeat in range(repeats)
        ]
        with stage("collate"):
            clips, finishing = together([video.clips[repeat] for video, _, repeat in each])
        return ClipBatch(
            clips=clips,
            finishing=finishing,
            labels=torch.stack([self._label(video.labels[repeat]) for video, _, repeat in each]),
            row=torch.tensor([video.row for video, _, _ in each]),
            view=torch.tensor([repeat for _, _, repeat in each]),
            position=torch.tensor([position * repeats + repeat for _, position, repeat in each]),
            substituted=tuple(pair for video, _ in videos for pair in video.substituted),
        )

    def _label(self, label: Label) -> Tensor:
        if not self.dataset.multi_label:
            return torch.tensor(label if isinstance(label, int) else 0)
        hot = torch.zeros(self.dataset.num_classes)
        hot[list(as_tuple(label))] = 1
        return hot
