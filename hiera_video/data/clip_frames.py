"""Frames of a record and of its clips, from an open video."""

from __future__ import annotations

from collections.abc import Sequence

from hiera_video.data.manifest.record import Record
from hiera_video.data.sampling import FrameRange, frame_range_of
from hiera_video.errors import DecodeError
from hiera_video.video.reader import Frames, VideoReader, unreadable


def record_frame_range(video: VideoReader, record: Record) -> FrameRange:
    """Return the frames of a video that `record` is about.

    Raises:
        DecodeError: The video has fewer frames than its list states, or none in the record's
            segment.
    """
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
            f"has no frame from {record.start_seconds} to {record.end_seconds} s; its frames are "
            f"at {video.times[0]:.2f} to {video.times[-1]:.2f} s",
        )
    return window


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
