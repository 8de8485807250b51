"""Load batches of training clips and test views: the same for any number of workers and ranks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hiera_video.data.dataset import TestViews, TrainClips, UnreadableVideo, VideoViews
from hiera_video.data.loading.batch_plan import BatchPlan, Slot
from hiera_video.data.loading.map_videos import map_videos
from hiera_video.data.loading.quarantine import OnOpen
from hiera_video.data.manifest.record import Label, as_tuple
from hiera_video.data.transforms.clip_sample import collate
from hiera_video.data.transforms.on_device import PendingBatch, finish_batch
from hiera_video.utils.profiler import stage


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """One micro-batch of a rank, B = videos × repeats, the repeats of a video side by side.

    If B clips are mixed with partners outside them (`BatchPlan`), `clips` and `labels` are those of
    2B clips, and the partners come last.
    """

    clips: Tensor
    """float32 [B, 3, T, S, S]; while crops are pending, their bytes, uint8 [N]."""
    labels: Tensor
    """Class indices int64 [B], 0 for a record without a label; multi-hot float32 [B, K] for a
    multi-label manifest."""
    row: Tensor
    """Manifest row of the video, int64 [B]."""
    view: Tensor
    """Number of the repeat within its video, int64 [B]."""
    position: Tensor
    """Position in the step's global batch of `batch_size * repeats` samples, int64 [B]; the same
    for any number of ranks."""
    substituted: tuple[tuple[str, str], ...]
    """(path, reason) of each unreadable video that another one was substituted for."""
    pending: PendingBatch | None = None
    """Work that `to` still does on the clips (`augment.device=model`)."""
    staged: Callable[[], list[Tensor]] | None = None
    """Returns `tensors` on the device, where a device feed has staged them."""

    def tensors(self) -> list[Tensor]:
        """Return the tensors that a device needs.

        `row`, `view` and `position`, which seeds are made of, stay on the CPU.
        """
        return [self.clips, self.labels, *(self.pending.tensors() if self.pending else [])]

    def to(self, device: torch.device) -> ClipBatch:
        """Return the batch with its `tensors` on `device`, and pending crops finished there."""
        if self.staged is not None:
            moved = self.staged()
        else:
            moved = [tensor.to(device, non_blocking=True) for tensor in self.tensors()]
        clips, labels, *rest = moved
        if self.pending is not None:
            clips = finish_batch(clips, self.pending.on_device(rest))
        return replace(self, clips=clips, labels=labels, pending=None, staged=None)


def train_loader(
    dataset: TrainClips,
    plan: BatchPlan,
    *,
    first_step: int,
    last_step: int,
    workers: int,
    context: str | None = None,
    batches: type[BatchLoader] | None = None,
) -> Iterator[list[ClipBatch]]:
    """Yield the micro-batches of each step; closing the generator ends its workers.

    Args:
        dataset: The training samples.
        plan: Which sample stands where in which batch.
        first_step: First step, counted over all epochs.
        last_step: Step to stop before.
        workers: Number of worker processes, which live until the last step; 0 loads in this
            process.
        context: `fork`, `spawn` or `forkserver`; the platform's default if None.
        batches: Makes the batches; by default `BatchLoader`.

    Raises:
        DecodeError: A video is unreadable and may not, or cannot, be substituted.
        ConfigError: A video is too short and `clip.short_videos=error`.
    """
    micro_batches = (
        slots for step in range(first_step, last_step) for slots in plan.micro_batches(step)
    )
    step: list[ClipBatch] = []
    for batch in map_videos(
        (batches or BatchLoader)(dataset, plan),
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
) -> Generator[VideoViews | UnreadableVideo]:
    """Yield `dataset[row]` for each of `rows`, in their order; closing it ends its workers.

    Args:
        dataset: The test views.
        workers: Number of worker processes; 0 loads in this process.
        rows: Records to load.
        context: `fork`, `spawn` or `forkserver`; the platform's default if None.

    Raises:
        ConfigError: A video is too short and `clip.short_videos=error`.
    """
    yield from map_videos(
        dataset.views, rows, workers=workers, quarantine=dataset.quarantine, context=context
    )


test_loader.__test__ = False  # type: ignore[attr-defined]  # keeps pytest from collecting it


class BatchLoader:
    """Loads the slots of one micro-batch into a `ClipBatch`."""

    def __init__(self, dataset: TrainClips, plan: BatchPlan) -> None:
        self.dataset = dataset
        self.plan = plan

    def __call__(self, slots: Sequence[Slot], on_open: OnOpen) -> ClipBatch:
        rows = self.plan.rows(slots[0].epoch)
        videos = [
            self.dataset.samples(slot.epoch, slot.place, rows=rows, on_open=on_open)
            for slot in slots
        ]
        repeats = self.dataset.clip.repeats
        with stage("collate"):
            clips, pending = collate([clip for video in videos for clip in video.clips])
        labels = [label for video in videos for label in video.labels]
        size = self.plan.chunk_size  # the partners after them give clips and labels alone
        slots, videos = slots[:size], videos[:size]
        return self.make_batch(
            labels,
            clips=clips,
            pending=PendingBatch.of(pending) if pending else None,
            row=torch.tensor([video.row for video in videos]).repeat_interleave(repeats),
            view=torch.arange(repeats).repeat(len(videos)),
            position=torch.tensor(
                [slot.position * repeats + repeat for slot in slots for repeat in range(repeats)]
            ),
            substituted=tuple(pair for video in videos for pair in video.substituted),
        )

    def make_batch(self, labels: Sequence[Any], **fields: Any) -> ClipBatch:
        """Return the batch of clips with these labels; `fields` are those of `ClipBatch`."""
        return ClipBatch(labels=torch.stack([self._encode(label) for label in labels]), **fields)

    def _encode(self, label: Label) -> Tensor:
        if not self.dataset.multi_label:
            return torch.tensor(label if isinstance(label, int) else 0)
        multi_hot = torch.zeros(self.dataset.num_classes)
        multi_hot[list(as_tuple(label))] = 1
        return multi_hot
