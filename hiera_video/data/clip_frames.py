"""Frames of a record and of its clips, from an open video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hiera_video.data.background import free_ranges, longest_range
from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import FrameRange, frame_range_of
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import DecodeError
from hiera_video.utils.text_files import count_of
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Frames, VideoReader, unreadable
from hiera_video.video.sequential import FramesRenumbered

AT_ONCE_BYTES = 128 << 20
"""Frames of clips that are decoded in one array; more are made into crops one by one."""


class ViewTransform(Protocol):
    """Turns the frames of a video into the views of a test, each frame by itself."""

    def views_of(self, frames: Frames, clips: Sequence[Sequence[int]]) -> Crops:
        """Return the crops of each clip.

        Args:
            frames: Distinct frames of the video, uint8 [N, H, W, 3].
            clips: For each clip, the places of its T frames among the N.
        """


def record_frame_range(video: VideoReader, record: Record) -> FrameRange:
    """Return the frames of a video that `record` is about; of background, the longest part.

    Raises:
        DecodeError: As for `record_frame_ranges`.
    """
    return longest_range(record_frame_ranges(video, record))


def record_frame_ranges(video: VideoReader, record: Record) -> list[FrameRange]:
    """Return the range of frames that `record` is about; of background, its parts.

    Raises:
        DecodeError: The video has fewer frames than its list states, or none in the record's
            segment.
    """
    times = video.times
    if record.num_frames is not None and len(times) < record.num_frames:
        raise unreadable(
            record.path,
            "truncated",
            f"has {count_of(len(times), 'frame')}, but its list says {record.num_frames}; make "
            "it again",
        )
    times = times[: record.num_frames]
    if record.excluded_seconds:
        if parts := free_ranges(times, video.fps, record.excluded_seconds):
            return parts
        raise unreadable(record.path, "empty_window", "has no frame outside its labelled segments")
    window = frame_range_of(times, video.fps, record.start_seconds, record.end_seconds)
    if window.num_frames < 1:
        raise unreadable(
            record.path,
            "empty_window",
            f"has no frame from {record.start_seconds} to {record.end_seconds} s; its frames are "
            f"at {video.times[0]:.2f} to {video.times[-1]:.2f} s",
        )
    return [window]


def decode_clips(
    video: VideoReader, clips: Sequence[Sequence[int]]
) -> list[tuple[Frames, list[list[int]]]]:
    """Decode the frames of several clips of a video, each distinct frame once.

    Args:
        video: The open video.
        clips: Frame numbers of each clip.

    Returns:
        Distinct frames [N, H, W, 3], and for each clip the places of its frames among the N. There
        are several such pairs, in order, if all clips together exceed the memory limit of a video.

    Raises:
        DecodeError: A frame is damaged, or a single clip exceeds the memory limit.
    """
    distinct = sorted({index for clip in clips for index in clip})
    try:
        frames = video.frames(distinct)
    except DecodeError as error:
        if error.reason != "too_large" or len(clips) == 1:
            raise
        middle = len(clips) // 2
        return [*decode_clips(video, clips[:middle]), *decode_clips(video, clips[middle:])]
    place = {index: position for position, index in enumerate(distinct)}
    return [(frames, [[place[index] for index in clip] for clip in clips])]


def crops_of_clips(
    video: VideoReader, clips: Sequence[Sequence[int]], transform: ViewTransform
) -> Crops:
    """Decode clips of a video and return their crops; each distinct frame is decoded once.

    Memory for frames is bounded by `AT_ONCE_BYTES` or by the frames of one clip, however many clips
    there are.

    Args:
        video: The open video.
        clips: Frame numbers of each clip, all of the same length.
        transform: Makes crops of frames.

    Raises:
        DecodeError: A frame is damaged.
    """
    distinct = sorted({index for clip in clips for index in clip})
    at_once = max(AT_ONCE_BYTES // _frame_bytes(video), 1)
    if len(distinct) <= at_once:
        place = {index: position for position, index in enumerate(distinct)}
        places = [[place[index] for index in clip] for clip in clips]
        return transform.views_of(video.frames(distinct), places)
    while True:
        try:
            return _crops_frame_by_frame(_iter_at(video, distinct, at_once), clips, transform)
        except FramesRenumbered:
            continue


def _crops_frame_by_frame(
    frames: Iterable[tuple[int, Frames]], clips: Sequence[Sequence[int]], transform: ViewTransform
) -> Crops:
    uses: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for clip, indices in enumerate(clips):
        for time, index in enumerate(indices):
            uses[index].append((clip, time))
    out: Tensor | None = None
    for index, frame in frames:
        crops = transform.views_of(frame[None], [[0]])
        picture = crops.clips[0, :, 0]
        if out is None:
            channels, height, width = picture.shape
            out = torch.empty(len(clips), channels, len(clips[0]), height, width)
        for clip, time in uses[index]:
            out[clip, :, time] = picture
    assert out is not None
    return Crops(clips=out, boxes=crops.boxes)


def _iter_at(
    video: VideoReader, indices: Sequence[int], at_once: int
) -> Iterator[tuple[int, Frames]]:
    if isinstance(video, PyAVReader):
        yield from video.iter_at(indices)
        return
    for start in range(0, len(indices), at_once):
        chunk = indices[start : start + at_once]
        yield from zip(chunk, video.frames(chunk))


def _frame_bytes(video: VideoReader) -> int:
    if isinstance(video, PyAVReader):
        return video.frame_bytes
    return video.info.width * video.info.height * 3
