"""Trial of another library's decoder: a few seeks, compared with a run from the start.

Lists of known failures are never complete: decord gets HEVC with open GOPs wrong, torchcodec H.263.
The first file of each kind (codec, container, encoder …) is tried when it is opened, once in a
process; a few hundred frames at most are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Frames

LAST_FRAME = 400
"""Seeks are tried up to this frame."""
KEYS, EVENLY = 3, 8
"""Key frames around which seeks are tried, and seeks if they are not known."""
CHUNK = 16
"""Frames that are in memory at once."""
GREY_LEVELS = 1.0
"""Mean difference by which another frame must be closer; conversions to RGB differ by less."""
ENCODER = re.compile(rb"x264 - core \d+|x265 \(build \d+\)|Lav[cf][\d.]+|DivX\w+|XviD\d+")


class FrameGetter(Protocol):
    """Decoder that returns frames by number: uint8 [T, H, W, 3]."""

    def get(self, indices: Sequence[int]) -> Frames: ...


class VideoKind(NamedTuple):
    """Properties in which a decoder's mistakes lie; files of one kind share a trial."""

    decoder: str
    container: str
    codec: str
    profile: str | None
    pixel_format: str | None
    encoder: bytes
    is_fragmented: bool
    is_reordered: bool
    has_open_gops: bool
    has_false_keys: bool
    has_edit_list: bool
    has_several_groups: bool
    rotation: int
    mirrored: bool


def kind_of(decoder: str, video: PyAVReader) -> VideoKind:
    """Return the kind of an open video for the trial of a decoder."""
    facts = video.stream_facts
    return VideoKind(
        decoder=decoder,
        container=video.container,
        codec=video.codec,
        profile=facts.profile,
        pixel_format=facts.pixel_format,
        encoder=b", ".join(sorted(set(ENCODER.findall(facts.first_bytes)))),
        is_fragmented=facts.is_fragmented,
        is_reordered=facts.is_reordered,
        has_open_gops=video.has_open_gops,
        has_false_keys=facts.has_false_keys,
        has_edit_list=facts.hides_packets,
        has_several_groups=len(video.key_frames) > 1,
        rotation=video.info.rotation,
        mirrored=video.info.mirrored,
    )


_failures: dict[VideoKind, str | None] = {}


def failure_of_kind(name: str, video: PyAVReader, opened: Callable[[], FrameGetter]) -> str | None:
    """Return what the decoder gets wrong in videos of this kind; None if nothing was found.

    Args:
        name: Name of the decoder.
        video: The video, opened by PyAV.
        opened: Returns a new decoder of the video.
    """
    kind = kind_of(name, video)
    if kind not in _failures:
        _failures[kind] = try_seeks(video, opened)
    return _failures[kind]


def try_seeks(video: PyAVReader, opened: Callable[[], FrameGetter]) -> str | None:
    """Compare seeks with a run from the start, and that with PyAV's exact frames."""
    places = trial_frames(len(video.times), video.key_frames)
    exact = video.frames(places)
    decoder, run = opened(), dict[int, Frames]()
    for start in range(0, places[-1] + 1, CHUNK):
        stop = min(start + CHUNK, places[-1] + 1)
        for index, frame in zip(range(start, stop), decoder.get(range(start, stop))):
            if index in places:
                run[index] = frame.copy()
    if any(frame.shape != exact.shape[1:] for frame in run.values()):
        height, width = run[places[0]].shape[:2]
        return f"returns frames of {width}x{height}"
    for place, index in enumerate(places):
        distances = [np.abs(frame - run[index].astype(np.int16)).mean() for frame in exact]
        if distances[place] > min(distances) + GREY_LEVELS:
            return "returns other frames"
    decoder = opened()  # which has not seen the first frame
    for index in reversed(places):
        if not np.array_equal(decoder.get([index])[0], run[index]):
            return "returns wrong frames after a seek"
    if not all(map(np.array_equal, opened().get(places), run.values())):
        return "returns wrong frames after a seek"
    return None


def trial_frames(count: int, key_frames: Sequence[int]) -> list[int]:
    """Return frames to seek to, ascending: around the first key frames, or evenly spaced.

    >>> trial_frames(100, [0, 24, 48])
    [0, 1, 12, 22, 23, 24, 25, 36, 46, 47, 48, 49, 74, 99]
    >>> trial_frames(5, [])
    [0, 1, 2, 3, 4]
    """
    last = min(count - 1, LAST_FRAME)
    keys = [key for key in key_frames if key <= last][: KEYS + 1]
    if not keys:
        return sorted({last * i // (EVENLY - 1) for i in range(EVENLY)})
    middles = {(a + b) // 2 for a, b in zip(keys, [*keys[1:], last + 1])}
    around = {key + step for key in keys for step in (-2, -1, 0, 1)}
    return sorted(place for place in middles | around | {last} if 0 <= place <= last)
