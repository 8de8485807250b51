"""From a record to what a model sees. Stateless: a training sample is a function of (seed, epoch, index) and its file,
a test sample of its file alone.

Training may take another video in a broken one's place, and says so; testing never does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from hiera_video.data.loading.quarantine import OnOpen, QuarantinePolicy
from hiera_video.data.manifest.record import Label, Manifest, Record
from hiera_video.data.sampling import (
    ClipConfig,
    FrameRange,
    check_num_clips,
    frame_range_of,
    test_clips,
    training_clip,
)
from hiera_video.data.transforms.flip_labels import Mirror
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.data.transforms.on_device import UnfinishedClip
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.utils.profiler import stage
from hiera_video.video import open_video
from hiera_video.video.options import Backend
from hiera_video.video.reader import Frames, VideoReader, unreadable

SUBSTITUTES = 10
"""Videos tried in a broken one's place. If all of them are broken too, the data set is, and training stops."""

ClipTransform = Callable[[Frames, random.Random], Tensor | UnfinishedClip]
"""(uint8 [T, H, W, 3], generator) → float32 [3, T, S, S], or what the model's device makes that of."""


class ViewTransform(Protocol):
    """What makes the views of a test."""

    def views_of(self, frames: Frames, clips: Sequence[Sequence[int]]) -> Crops:
        """uint8 [N, H, W, 3] and the places of each clip's T frames among the N → the crops of each clip."""


@dataclass(frozen=True, kw_only=True)
class TrainSamples:
    """All samples of one video in one epoch."""

    clips: tuple[Tensor | UnfinishedClip, ...]
    """`clip.repeats` clips, float32 [3, T, S, S], or what becomes that."""
    labels: tuple[Label, ...]
    """Of each clip: all the video's, but for clips that were flipped into another class."""
    row: int
    """Of the video that the clips come from, which is another one than asked for if that was broken."""
    substituted: tuple[tuple[str, str], ...]
    """(path, reason) of each video that could not be read and was passed over."""


@dataclass(frozen=True, kw_only=True)
class VideoViews:
    """All views of one video in a test."""

    row: int
    crops: Crops
    """V = clips × crops views [3, T, S, S], the crops of a clip side by side."""
    clip_seconds: tuple[tuple[float, float], ...]
    """Start of each clip's first frame and end of its last, on the file's clock."""
    seconds: float
    """How long reading and scaling took: slow files are worth knowing."""

    @property
    def views(self) -> Tensor:
        """All of them, float32 [V, 3, T, S, S]: a copy that is several times as large as `crops`."""
        return self.crops.stacked()


@dataclass(frozen=True, kw_only=True)
class UnreadableVideo:
    """A video of a test that cannot be read; `reason` is one of `decode.protocol.REASONS`."""

    row: int
    path: str
    reason: str
    message: str


class TrainClips:
    """Training samples: `dataset[epoch, index]`.

    `fresh_repeats`: each of `clip.repeats` samples is another random clip (pre-training), all decoded in one pass;
    otherwise it is the same clip, augmented again (fine-tuning). `need_labels` is on unless repeats are fresh.
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
        fresh_repeats: bool = False,
        need_labels: bool | None = None,
        num_classes: int | None = None,
        quarantine: QuarantinePolicy | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        if not manifest.records:
            raise ManifestError(f"{manifest.source}: holds no videos to train on")
        if need_labels if need_labels is not None else not fresh_repeats:
            manifest.require_labels()
        self.records = manifest.records
        self.multi_label = manifest.multi_label
        self.num_classes = num_classes if num_classes is not None else manifest.num_classes
        """Width of multi-hot labels; the model's, where that has more classes than the manifest."""
        self.clip = clip
        self.transform = transform
        self.seed = seed
        self.decoder = decoder
        self.on_broken = on_broken
        self.fresh_repeats = fresh_repeats
        self.mirror = mirror
        """Flips here, where labels depend on it; the transform must not flip then."""
        self.quarantine = quarantine or QuarantinePolicy()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int]) -> TrainSamples:
        """The samples of record `index` in `epoch`. `DecodeError` where it is broken and may not, or cannot, be
        substituted; `ConfigError` where it is too short and `clip.short_videos=error`."""
        return self.samples(*key)

    def samples(self, epoch: int, index: int, opening: OnOpen | None = None) -> TrainSamples:
        """`self[epoch, index]`, telling `opening` of each file."""
        passed_over: list[tuple[str, str]] = []
        choice = random.Random(f"substitute/{self.seed}/{epoch}/{index}")
        record = self.records[index]
        while True:
            # each attempt starts the sample's generator anew: how far a broken file got must not matter
            generator = random.Random(f"clip/{self.seed}/{epoch}/{index}")
            try:
                if opening is not None:
                    opening(record.path)
                with _one_thread():
                    clips, labels = self._clips(record, generator)
            except DecodeError as error:
                if self.on_broken == "error":
                    raise
                passed_over.append((record.path, error.reason))
                if len(passed_over) > SUBSTITUTES:
                    raise DecodeError(
                        f"{error} (as were {SUBSTITUTES} videos tried before it); is data.root right, and its disk there?",
                        reason=error.reason,
                    ) from error
                record = self.records[choice.randrange(len(self.records))]
            else:
                return TrainSamples(
                    clips=clips, labels=labels, row=record.row, substituted=tuple(passed_over)
                )

    def _clips(
        self, record: Record, generator: random.Random
    ) -> tuple[tuple[Tensor | UnfinishedClip, ...], tuple[Label, ...]]:
        repeats = self.clip.repeats
        with stage("open"), open_video(record.source, self.decoder) as video:
            window = record_frame_range(video, record)
            drawn = repeats if self.fresh_repeats else 1
            with _named(record.path):
                indices = [training_clip(window, self.clip, generator) for _ in range(drawn)]
            with stage("decode"):
                if drawn == 1:
                    decoded = [video.frames([window.first + i for i in indices[0]])]
                else:
                    decoded = [
                        frames[clip]
                        for frames, places in _decode(video, window, indices)
                        for clip in places
                    ]
        clips: list[Tensor | UnfinishedClip] = []
        labels = []
        for repeat in range(repeats):
            frames, label = decoded[repeat % drawn], record.label
            if self.mirror is not None:
                flipped, label = self.mirror.flip(label, generator)
                frames = frames[:, :, ::-1] if flipped else frames
            clips.append(self.transform(frames, generator))
            labels.append(label)
        return tuple(clips), tuple(labels)


class TestViews:
    """All views of each video: `dataset[i]` for record i."""

    __test__ = False  # not a test case, whatever pytest reads into the name

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

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> VideoViews | UnreadableVideo:
        return self.views(index)

    def views(self, index: int, opening: OnOpen | None = None) -> VideoViews | UnreadableVideo:
        """`self[index]`, telling `opening` of the file."""
        record = self.records[index]
        try:
            if opening is not None:
                opening(record.path)
            with _one_thread():
                return self._views(record)
        except DecodeError as error:
            return UnreadableVideo(
                row=record.row, path=record.path, reason=error.reason, message=str(error)
            )

    def _views(self, record: Record) -> VideoViews:
        started = time.monotonic()
        with open_video(record.source, self.decoder) as video:
            window = record_frame_range(video, record)
            with _named(record.path):
                indices = test_clips(window, self.clip, self.num_clips)
            crops = [
                self.transform.views_of(frames, places)
                for frames, places in _decode(video, window, indices)
            ]
            times, frame_seconds = video.times, 1 / video.fps
        return VideoViews(
            row=record.row,
            crops=Crops.joined(crops),
            clip_seconds=tuple(
                (times[window.first + min(clip)], times[window.first + max(clip)] + frame_seconds)
                for clip in indices
            ),
            seconds=time.monotonic() - started,
        )


def record_frame_range(video: VideoReader, record: Record) -> FrameRange:
    """The frames that count for `record`. `DecodeError` where its list promises more than there are, or its seconds leave
    none."""
    times = video.times
    if record.num_frames is not None and len(times) < record.num_frames:
        raise unreadable(
            record.path,
            "truncated",
            f"has {len(times)} frames, but its list says {record.num_frames}; make it again",
        )
    window = frame_range_of(
        times[: record.num_frames], video.fps, record.start_seconds, record.end_seconds
    )
    if window.num_frames < 1:
        raise unreadable(
            record.path,
            "empty_window",
            f"has no frame from {record.start_seconds} to {record.end_seconds} s; its frames are at "
            f"{video.times[0]:.2f} to {video.times[-1]:.2f} s",
        )
    return window


def _decode(
    video: VideoReader, window: FrameRange, clips: Sequence[Sequence[int]]
) -> list[tuple[Frames, list[list[int]]]]:
    """The frames of several clips of one video, decoded in one pass, each once; and the places of each clip's among them.
    One such pair a clip where all together take more memory than is meant for one video."""
    distinct = sorted({i for clip in clips for i in clip})
    place = {index: position for position, index in enumerate(distinct)}
    try:
        frames = video.frames([window.first + i for i in distinct])
    except DecodeError as error:
        if error.reason != "too_large" or len(clips) == 1:
            raise
        return [part for clip in clips for part in _decode(video, window, [clip])]
    return [(frames, [[place[i] for i in clip] for clip in clips])]


@contextmanager
def _named(path: str) -> Iterator[None]:
    """The samplers know no file; the message should."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Kernels split their work by the number of threads, and round differently where they split; loader workers have
    one thread, so everyone has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
