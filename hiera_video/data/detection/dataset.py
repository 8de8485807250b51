"""Datasets of action detection: training samples of key frames, and their crops in a test."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiera_video.data.dataset import TestViews, TrainClips, VideoViews, single_threaded
from hiera_video.data.detection.box_geometry import (
    assign_crops,
    crop_boxes,
    jitter_boxes,
    mirror_boxes,
)
from hiera_video.data.detection.key_frame import Boxes, KeyFrame
from hiera_video.data.detection.key_frame_clip import centred_indices, frame_at
from hiera_video.data.loading.loader import BatchLoader, ClipBatch
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.data.transforms.on_device import finish_batch
from hiera_video.data.transforms.train_eval import (
    EvalTransform,
    TrainTransform,
    as_clip,
    crop_offsets,
    resized_size,
)
from hiera_video.errors import ManifestError
from hiera_video.utils.profiler import stage
from hiera_video.video import open_video
from hiera_video.video.reader import Frames, VideoReader


@dataclass(frozen=True, kw_only=True)
class ClipBoxes:
    """The boxes of a training clip."""

    boxes: Boxes
    """[N, 4] in pixels of the clip."""
    labels: tuple[tuple[int, ...], ...]
    """Class indices of each box."""
    outside: int
    """Boxes of the key frame whose centre lies outside the clip, which are left out."""


@dataclass(frozen=True, kw_only=True)
class BoxBatch(ClipBatch):
    """A micro-batch with the boxes of its clips; `labels` are those of the boxes, [N, K]."""

    boxes: Tensor
    """float32 [N, 5]: the index of the clip, and left, top, right and bottom in its pixels."""
    outside: int
    """Boxes left out because their centre lies outside their clip."""

    def tensors(self) -> list[Tensor]:
        """Return the tensors that a device needs."""
        pending = self.pending.tensors() if self.pending else []
        return [self.clips, self.labels, self.boxes, *pending]

    def to(self, device: torch.device) -> BoxBatch:
        """Return the batch with its `tensors` on `device`, and pending crops finished there."""
        if self.staged is not None:
            moved = self.staged()
        else:
            moved = [tensor.to(device, non_blocking=True) for tensor in self.tensors()]
        clips, labels, boxes, *rest = moved
        if self.pending is not None:
            clips = finish_batch(clips, self.pending.on_device(rest))
        return replace(self, clips=clips, labels=labels, boxes=boxes, pending=None, staged=None)


def add_whole_boxes(batch: ClipBatch, count: int) -> BoxBatch:
    """Return a batch with so many boxes of each clip, each of the size of the clip."""
    edges = torch.tensor([0, 0, batch.clips.shape[-1], batch.clips.shape[-2]])
    clip = torch.arange(len(batch.clips)).repeat_interleave(count)
    fields = {item.name: getattr(batch, item.name) for item in dataclasses.fields(batch)}
    return BoxBatch(
        **{**fields, "labels": batch.labels.repeat_interleave(count, dim=0)},
        boxes=torch.cat([clip[:, None], edges.expand(len(clip), 4)], dim=1).float(),
        outside=0,
    )


class BoxBatchLoader(BatchLoader):
    """Loads the key frames of one micro-batch into a `BoxBatch`."""

    def make_batch(self, labels: Sequence[ClipBoxes], **fields: Any) -> BoxBatch:
        """Return the batch of clips with these boxes."""
        rows = [torch.from_numpy(clip.boxes) for clip in labels]
        clip = torch.tensor([index for index, own in enumerate(rows) for _ in own])
        classes = [found for clip_boxes in labels for found in clip_boxes.labels]
        multi_hot = torch.zeros(len(classes), self.dataset.num_classes)
        for number, found in enumerate(classes):
            multi_hot[number, list(found)] = 1
        return BoxBatch(
            labels=multi_hot,
            boxes=torch.cat([clip[:, None].float(), torch.cat(rows)], dim=1),
            outside=sum(clip_boxes.outside for clip_boxes in labels),
            **fields,
        )


class TrainKeyFrames(TrainClips):
    """Training samples of key frames: the clip around each, its boxes moved with the pixels.

    Args:
        manifest: A `BoxManifest`.
        clip: Which frames make a clip.
        transform: Augments and crops the frames of a clip.
        start_seconds: As in `detect.start_seconds`.
        **options: Those of `TrainClips`.
    """

    transform: TrainTransform

    def __init__(self, *arguments: Any, start_seconds: float = 0.0, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.start_seconds = start_seconds

    def _decode(self, record: Record, clips: int, generator: random.Random) -> list[Frames]:
        assert isinstance(record, KeyFrame)
        with stage("open"), open_video(record.source, self.decoder) as video:
            indices = key_frame_indices(video, record, self.clip, self.start_seconds)
            with stage("decode"):
                return [video.frames(indices)]

    def _draw_clips(
        self, record: Record, generator: random.Random
    ) -> tuple[tuple[ClipSample, ...], tuple[ClipBoxes, ...]]:
        assert isinstance(record, KeyFrame)
        (frames,) = self._decode(record, 1, generator)
        drawn = [self._draw_clip(record, frames, generator) for _ in range(self.clip.repeats)]
        return tuple(clip for clip, _ in drawn), tuple(boxes for _, boxes in drawn)

    def _draw_clip(
        self, record: KeyFrame, frames: Frames, generator: random.Random
    ) -> tuple[ClipSample, ClipBoxes]:
        boxes, labels = record.boxes, record.labels
        if self.label_flip is not None:
            flip, _ = self.label_flip.draw(record.label, generator)
            if flip:
                frames, boxes = frames[:, :, ::-1], mirror_boxes(boxes)
                labels = tuple(map(self._mirrored, labels))
        augment = self.transform.augment
        if augment.box_jitter > 0:
            boxes = jitter_boxes(boxes, augment.box_jitter, generator)
        with stage("augment"):
            clip = self.transform.augment_frames(as_clip(frames), generator)
        with stage("crop"):
            sample, crop = self.transform.draw_crop(clip, generator)
            assert sample.pending is not None
            moved, inside = crop_boxes(
                boxes,
                frame=(clip.shape[-2], clip.shape[-1]),
                crop=crop,
                size=self.transform.size,
                flip=sample.pending.flip,
            )
            kept = tuple(found for found, stays in zip(labels, inside) if stays)
            outside = len(labels) - len(kept)
            finished = sample if augment.device == "model" else sample.finish()
        return finished, ClipBoxes(boxes=moved, labels=kept, outside=outside)

    def _mirrored(self, label: tuple[int, ...]) -> tuple[int, ...]:
        assert self.label_flip is not None
        found = (self.label_flip.mirrored.get(index, index) for index in label)
        return tuple(sorted(index for index in found if index is not None))


class FrameCrops(EvalTransform):
    """Square crops along a frame's long side, whose short side always becomes that of the crops.

    So a single crop is the centre of a validation by PySlowFast on AVA.
    """

    def layout(self, height: int, width: int) -> tuple[tuple[int, int], list[tuple[int, int]]]:
        """Return the size of a resized frame, and (top, left) of each crop in it."""
        target = resized_size(height, width, short_side=self.size)
        return target, crop_offsets(*target, size=self.size, crops=self.crops)


@dataclass(frozen=True, kw_only=True)
class KeyFrameViews(VideoViews):
    """The crops of a key frame that show its boxes; `crops` has no others."""

    boxes: Tensor
    """float32 [N, 5]: the number of the crop, and left, top, right and bottom in its pixels. The
    boxes are in the order of the key frame."""
    outside: NDArray[np.bool_]
    """[N] True for a box that no crop shows any part of."""


class BoxViews(TestViews):
    """The crops of each key frame of a manifest: `dataset[i]` for record i.

    A box is scored once, in the crop that shows most of it; crops without boxes are left out.

    Args:
        manifest: A `BoxManifest`.
        clip: Which frames make a clip.
        transform: Crops the frames.
        start_seconds: As in `detect.start_seconds`.
        **options: `decoder` and `quarantine`, as in `TestViews`.
    """

    records: tuple[KeyFrame, ...]
    transform: FrameCrops

    def __init__(self, *arguments: Any, start_seconds: float = 0.0, **options: Any) -> None:
        super().__init__(*arguments, num_clips=1, **options)
        self.start_seconds = start_seconds

    def _views(self, record: Record) -> KeyFrameViews:
        assert isinstance(record, KeyFrame)
        started = time.monotonic()
        with single_threaded(), open_video(record.source, self.decoder) as video:
            indices = key_frame_indices(video, record, self.clip, self.start_seconds)
            times, frame_seconds = video.times, 1 / video.fps
            frames = video.frames(sorted(set(indices)))
        place = {index: number for number, index in enumerate(sorted(set(indices)))}
        crops = self.transform.views_of(frames, [[place[index] for index in indices]])
        target, offsets = self.transform.layout(frames.shape[1], frames.shape[2])
        chosen, moved = assign_crops(
            record.boxes, frame=target, offsets=offsets, size=self.transform.size
        )
        used, number = np.unique(chosen, return_inverse=True)
        edges = np.concatenate([number.reshape(-1, 1).astype(np.float32), moved], axis=1)
        hidden = (moved[:, 2:] <= moved[:, :2]).any(axis=1)
        sized = (record.boxes[:, 2:] > record.boxes[:, :2]).all(axis=1)
        return KeyFrameViews(
            row=record.row,
            crops=Crops(clips=crops.clips, boxes=tuple(crops.boxes[index] for index in used)),
            clip_seconds=((times[min(indices)], times[max(indices)] + frame_seconds),),
            seconds=time.monotonic() - started,
            boxes=torch.from_numpy(edges),
            outside=np.logical_and(sized, hidden),
        )


def key_frame_indices(
    video: VideoReader, record: KeyFrame, clip: ClipConfig, start_seconds: float
) -> list[int]:
    """Return the frames of the clip around a key frame.

    Raises:
        ManifestError: The video does not reach the key frame.
    """
    times, fps = video.times, video.fps
    center = frame_at(times, fps, record.second - start_seconds)
    if center is None:
        shown = [times[0] + start_seconds, times[-1] + 1 / fps + start_seconds]
        raise ManifestError(
            f"{record.where}: second {record.second:g} lies outside {record.path}, which shows "
            f"{shown[0]:.2f} to {shown[1]:.2f}; correct the line, or set detect.start_seconds to "
            f"the second at which the videos start (now {start_seconds:g})"
        )
    stride = clip.frame_stride * (fps / clip.target_fps if clip.target_fps else 1.0)
    return centred_indices(center, count=clip.num_frames, stride=stride, num_frames=len(times))
