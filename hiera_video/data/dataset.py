"""Datasets: training samples and test views of the videos of a manifest.

Both are stateless: a training sample depends on (seed, epoch, place) and its file alone, and the
views of a test on their file alone. Training may substitute another video for an unreadable one,
and reports it; testing never does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from hiera_video.data.background import training_range
from hiera_video.data.clip_frames import (
    ViewTransform,
    crops_of_clips,
    decode_clips,
    record_frame_range,
    record_frame_ranges,
)
from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.loading.storage import StorageGuard
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import (
    ClipConfig,
    check_num_clips,
    test_clips,
    training_clip,
)
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.flip_labels import LabelFlip
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.utils.profiler import stage
from hiera_video.utils.text_files import count_of
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.reader import Frames

SUBSTITUTES = 10
"""Videos tried in place of an unreadable one before training stops."""

ClipTransform = Callable[[Frames, random.Random], ClipSample]
"""Turns uint8 frames [T, H, W, 3] into a training clip, with random numbers from the generator."""


@dataclass(frozen=True, kw_only=True)
class TrainSamples:
    """All samples of one video in one epoch."""

    clips: tuple[ClipSample, ...]
    """`clip.repeats` clips."""
    labels: tuple[Any, ...]
    """Label of each clip: the video's, except for clips that were flipped into another class; for
    action detection its `ClipBoxes`."""
    row: int
    """Manifest row of the video that the clips come from, which may be a substitute."""
    substituted: tuple[tuple[str, str], ...]
    """(path, reason) of each unreadable video that was skipped."""


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """All views of one video in a test."""

    row: int
    crops: Crops
    """V = clips × crops views [3, T, S, S], the crops of a clip side by side."""
    clip_seconds: tuple[tuple[float, float], ...]
    """Start of each clip's first frame and end of its last, on the file's clock."""
    seconds: float
    """Time that reading and resizing took; slow files are reported."""

    @property
    def views(self) -> Tensor:
        """All views, float32 [V, 3, T, S, S]: a copy that is several times as large as `crops`."""
        return self.crops.stack()


@dataclass(frozen=True, kw_only=True)
class UnreadableVideo:
    """A video of a test that cannot be read; `reason` is one of `video.reader.REASONS`."""

    row: int
    path: str
    reason: str
    message: str


class TrainClips:
    """Training samples of a manifest: `dataset[epoch, place]`.

    Args:
        manifest: The videos and their labels.
        clip: Which frames make a clip, and how many samples each video gives (`repeats`).
        transform: Augments and crops the frames of a clip.
        seed: Seed of all random numbers.
        decoder: Backend that reads the videos.
        on_broken: Substitute another video for an unreadable one, or raise its error.
        independent_repeats: Draw a new clip of the video for each repeat, all decoded at once
            (pre-training); otherwise augment the same clip again (fine-tuning).
        need_labels: Refuse a manifest without labels; by default, unless repeats are independent.
        num_classes: Width of multi-hot labels, if the model has more classes than the manifest.
        quarantine: When a loader skips a file from then on, and where it records that.
        label_flip: Flips clips here, for classes whose labels depend on it; the transform must
            not flip then.

    Raises:
        ManifestError: The manifest has no videos, or lacks labels that are needed.
    """

    def __init__(
        self,
        manifest: Manifest,
        clip: ClipConfig,
        transform: ClipTransform,
        *,
        seed: int,
        decoder: Backend = "pyav",
        on_broken: Literal["substitute", "error"] = "substitute",
        independent_repeats: bool = False,
        need_labels: bool | None = None,
        num_classes: int | None = None,
        quarantine: QuarantinePolicy | None = None,
        label_flip: LabelFlip | None = None,
    ) -> None:
        if not manifest.records:
            raise ManifestError(f"{manifest.source}: holds no videos to train on")
        if need_labels if need_labels is not None else not independent_repeats:
            manifest.require_labels()
        self.records = manifest.records
        self.multi_label = manifest.multi_label
        self.num_classes = num_classes if num_classes is not None else manifest.num_classes
        self.clip = clip
        self.transform = transform
        self.seed = seed
        self.decoder = decoder
        self.on_broken = on_broken
        self.independent_repeats = independent_repeats
        self.label_flip = label_flip
        self.quarantine = quarantine or QuarantinePolicy()
        self._storage = StorageGuard(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> TrainSamples:
        """Return the samples of record `place` in `epoch`; `key` is (epoch, place).

        Raises:
            DecodeError: The video is unreadable and may not, or cannot, be substituted.
            ConfigError: The video is too short and `clip.short_videos=error`.
        """
        return self.samples(*key)

    def samples(
        self,
        epoch: int,
        place: int,
        *,
        rows: Sequence[int] | None = None,
        on_open: OnOpen | None = None,
    ) -> TrainSamples:
        """Return the samples at one place of an epoch.

        All random numbers are drawn by place, so a video that a balanced epoch repeats is cropped
        and augmented differently each time.

        Args:
            epoch: Number of the epoch.
            place: Place in the epoch, before shuffling.
            rows: Record at each place of the epoch (`BatchPlan.rows`); by default, the manifest's
                order.
            on_open: Called with each path before it is opened.

        Raises:
            DecodeError: The video is unreadable and may not, or cannot, be substituted.
            StorageError: The storage of the videos fails for longer than the guard waits.
            ConfigError: The video is too short and `clip.short_videos=error`.
        """
        rows = range(len(self.records)) if rows is None else rows
        skipped: list[tuple[str, str]] = []
        substitutes = random.Random(f"substitute/{self.seed}/{epoch}/{place}")
        record = self.records[rows[place]]
        seed = f"clip/{self.seed}/{epoch}/{place}"
        while True:
            try:
                # each attempt restarts the generator: how far a failed one got must not matter
                attempt = partial(self._clips, record, seed)
                clips, labels = self._storage.read(record, attempt, on_open)
            except DecodeError as error:
                if self.on_broken == "error":
                    raise
                skipped.append((record.path, error.reason))
                if len(skipped) > SUBSTITUTES:
                    raise explain_unreadable(error, skipped) from error
                record = self.records[rows[substitutes.randrange(len(self.records))]]
            else:
                return TrainSamples(
                    clips=clips, labels=labels, row=record.row, substituted=tuple(skipped)
                )

    def _clips(self, record: Record, seed: str) -> tuple[tuple[ClipSample, ...], tuple[Any, ...]]:
        with single_threaded():
            return self._draw_clips(record, random.Random(seed))

    def _draw_clips(
        self, record: Record, generator: random.Random
    ) -> tuple[tuple[ClipSample, ...], tuple[Any, ...]]:
        repeats = self.clip.repeats
        decoded = self._decode(record, repeats if self.independent_repeats else 1, generator)
        clips, labels = [], []
        for repeat in range(repeats):
            frames, label = decoded[repeat % len(decoded)], record.label
            if self.label_flip is not None:
                flip, label = self.label_flip.draw(label, generator)
                frames = frames[:, :, ::-1] if flip else frames
            clips.append(self.transform(frames, generator))
            labels.append(label)
        return tuple(clips), tuple(labels)

    def _decode(self, record: Record, clips: int, generator: random.Random) -> list[Frames]:
        """Return the frames of so many random clips of a video, each frame decoded once."""
        with stage("open"), open_video(record.source, self.decoder) as video:
            parts, indices = record_frame_ranges(video, record), list[list[int]]()
            with _name_video_in_errors(record.path):
                for _ in range(clips):
                    part = training_range(parts, record, self.clip, generator)
                    drawn = training_clip(part, self.clip, generator)
                    indices.append([part.first + index for index in drawn])
            with stage("decode"):
                if clips == 1:
                    return [video.frames(indices[0])]
                return [
                    frames[clip]
                    for frames, places in decode_clips(video, indices)
                    for clip in places
                ]


class TestViews:
    """All test views of each video of a manifest: `dataset[i]` for record i.

    Args:
        manifest: The videos.
        clip: Which frames make a clip.
        transform: Crops the frames of the clips.
        num_clips: Clips of each video.
        decoder: Backend that reads the videos.
        quarantine: When a loader skips a file from then on, and where it records that.

    Raises:
        ConfigError: `clip.sampling` has no rule for `num_clips`.
    """

    __test__ = False  # keeps pytest from collecting the class

    def __init__(
        self,
        manifest: Manifest,
        clip: ClipConfig,
        transform: ViewTransform,
        *,
        num_clips: int,
        decoder: Backend = "pyav",
        quarantine: QuarantinePolicy | None = None,
    ) -> None:
        check_num_clips(clip, num_clips)
        self.records = manifest.records
        self.clip = clip
        self.transform = transform
        self.num_clips = num_clips
        self.decoder = decoder
        self.quarantine = quarantine or QuarantinePolicy()
        self._storage = StorageGuard(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> VideoViews | UnreadableVideo:
        return self.views(index)

    def views(self, index: int, on_open: OnOpen | None = None) -> VideoViews | UnreadableVideo:
        """Return the views of record `index`.

        Args:
            index: Place in the manifest.
            on_open: Called with the path before it is opened.

        Raises:
            StorageError: The storage of the videos fails for longer than the guard waits.
            ConfigError: The video is too short and `clip.short_videos=error`.
        """
        record = self.records[index]
        try:
            return self._storage.read(record, partial(self._views, record), on_open)
        except DecodeError as error:
            return UnreadableVideo(
                row=record.row, path=record.path, reason=error.reason, message=str(error)
            )

    def _views(self, record: Record) -> VideoViews:
        started = time.monotonic()
        with single_threaded(), open_video(record.source, self.decoder) as video:
            window = record_frame_range(video, record)
            with _name_video_in_errors(record.path):
                clips = test_clips(window, self.clip, self.num_clips)
            clips = [[window.first + index for index in clip] for clip in clips]
            crops = crops_of_clips(video, clips, self.transform)
            times, frame_seconds = video.times, 1 / video.fps
        return VideoViews(
            row=record.row,
            crops=crops,
            clip_seconds=tuple(
                (times[min(clip)], times[max(clip)] + frame_seconds) for clip in clips
            ),
            seconds=time.monotonic() - started,
        )


def explain_unreadable(error: DecodeError, skipped: Sequence[tuple[str, str]]) -> DecodeError:
    """Return the error of a video and of all its substitutes, (path, reason) each."""
    message, others = str(error), len({path for path, _ in skipped}) - 1
    if others:
        message += f"; {count_of(others, 'other video')} could not be read either"
    if error.reason == "missing":
        message += "; check data.root, and that its disk is mounted"
    return DecodeError(message, reason=error.reason)


@contextmanager
def _name_video_in_errors(path: str) -> Iterator[None]:
    """Add the path to the message of a sampler's `ConfigError`."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run torch on one thread, as workers do: kernels round differently where they split work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
