"""Windows of a video and the frames of their clips, as literals."""

from __future__ import annotations

from typing import Any

import pytest

from hiera_video.data.sampling import ClipConfig, FrameRange
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.windows import (
    Window,
    check_windows,
    count_windows,
    sliding_windows,
    view_windows,
)

CLIP = ClipConfig(num_frames=4, frame_stride=2, target_fps=None)  # spans 8 frames


def facts(windows: list[Window]) -> list[Any]:
    return [(round(w.start_seconds, 6), round(w.end_seconds, 6), w.tail, w.frames) for w in windows]


def windows_of(
    count: int, *, fps: float = 10.0, clip: ClipConfig = CLIP, first: int = 0, **options: Any
) -> list[Any]:
    times = [frame / fps for frame in range(first + count)]
    record = FrameRange(first=first, num_frames=count, fps=fps)
    return facts(sliding_windows(times, fps, record, clip, FeaturesConfig(**options)))


def test_count_windows() -> None:
    assert count_windows(10, 4, 4) == (2, True)
    assert count_windows(10, 4, 3) == (3, False)
    assert count_windows(10, 4, 1) == (7, False)
    assert count_windows(10.5, 4, 1) == (7, True)
    assert count_windows(3, 4, 4) == (0, True)
    assert count_windows(10, 2, 5) == (2, False)  # the gap between windows is not a tail
    assert count_windows(11, 2, 5) == (2, True)
    assert count_windows(3.96, 4, 4, slack=0.05) == (1, False)
    assert count_windows(8.04, 4, 4, slack=0.05) == (2, False)


def test_default_window_is_the_span_of_a_clip() -> None:
    assert windows_of(20) == [
        (0.0, 0.8, False, (0, 2, 4, 7)),
        (0.8, 1.6, False, (8, 10, 12, 15)),
        (1.6, 2.0, True, (16, 18, 19, 19)),
    ]
    assert windows_of(16)[-1][:3] == (0.8, 1.6, False)
    assert windows_of(20, tail="drop") == windows_of(20)[:2] and windows_of(5, tail="drop") == []
    assert windows_of(3) == [(0.0, 0.3, True, (0, 2, 2, 2))]


def test_windows_in_seconds_do_not_depend_on_the_frame_rate() -> None:
    clip = ClipConfig(num_frames=4, frame_stride=2, target_fps=30)
    for fps in (15, 29.97, 30, 50, 60):
        found = windows_of(round(3 * fps), fps=fps, clip=clip, window=1.0, stride=0.5)
        assert [start for start, *_ in found] == [0.0, 0.5, 1.0, 1.5, 2.0]
        assert not any(tail for _, _, tail, _ in found)
        for start, end, _, frames in found:
            assert all(start - 0.2 / fps <= frame / fps < end for frame in frames)


def test_the_clip_lies_in_the_middle_of_a_longer_window() -> None:
    assert windows_of(32, window=1.6) == [
        (0.0, 1.6, False, (4, 6, 8, 11)),
        (1.6, 3.2, False, (20, 22, 24, 27)),
    ]


def test_windows_in_frames() -> None:
    found = windows_of(20, unit="frames", window=8, stride=6)
    assert [(start, end, tail) for start, end, tail, _ in found] == [
        (0.0, 0.8, False),
        (0.6, 1.4, False),
        (1.2, 2.0, False),
    ]
    assert [frames[0] for *_, frames in found] == [0, 6, 12]
    assert windows_of(20, unit="frames") == windows_of(20)


def test_a_segment_of_a_video_keeps_the_files_clock() -> None:
    assert windows_of(16, first=30) == [
        (3.0, 3.8, False, (30, 32, 34, 37)),
        (3.8, 4.6, False, (38, 40, 42, 45)),
    ]


def test_a_gap_has_no_window() -> None:
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1]
    config = FeaturesConfig(window=0.5)
    record = FrameRange(first=0, num_frames=6, fps=10.0)
    found = sliding_windows(times, 10.0, record, CLIP, config)
    assert [(window.number, window.tail) for window in found] == [(0, False), (4, True)]
    assert {frame for window in found for frame in window.frames} <= set(range(6))


def test_segments_cover_the_whole_video_unless_a_window_is_set() -> None:
    clip = ClipConfig(num_frames=4, sampling="segments")
    assert windows_of(41, clip=clip) == [(0.0, 4.1, False, (5, 15, 25, 35))]
    found = windows_of(40, clip=clip, window=2.0)
    assert [window[:3] for window in found] == [(0.0, 2.0, False), (2.0, 4.0, False)]


def test_views_of_a_test_are_windows_of_their_clips() -> None:
    times = [frame / 10 for frame in range(40)]
    record = FrameRange(first=10, num_frames=20, fps=10.0)
    assert facts(view_windows(times, 10.0, record, CLIP, 2)) == [
        (1.0, 1.8, False, (10, 12, 14, 17)),
        (2.2, 3.0, False, (22, 24, 26, 29)),
    ]


def test_settings_without_windows_are_refused() -> None:
    with pytest.raises(
        ValueError, match="short_videos=error: the tail of a video is shorter than a clip; set"
    ):
        check_windows(FeaturesConfig(), ClipConfig(short_videos="error"))
    with pytest.raises(
        ValueError, match=r"features.stride=2.0: clip.sampling=segments has clips of any length"
    ):
        check_windows(FeaturesConfig(stride=2.0), ClipConfig(sampling="segments"))
    check_windows(FeaturesConfig(stride=2.0, window=2.0), ClipConfig(sampling="segments"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0.0}, "features.window=0.0: must be above 0 seconds"),
        ({"stride": float("nan")}, "features.stride=nan: must be above 0 seconds"),
        (
            {"window": 2.5, "unit": "frames"},
            "features.window=2.5: must be a whole number with features.unit=frames",
        ),
        ({"pooling": "avg"}, "features.pooling='avg': choose one of mean, max, temporal, none"),
        ({"batch_size": 0}, "features.batch_size=0: must be 1 or more"),
        ({"shard_videos": 0}, "features.shard_videos=0: must be 1 or more"),
        ({"stages": (0, 1)}, r"features.stages=\[0, 1\]: must be distinct numbers, counted from 1"),
        ({"stages": (1, 1)}, r"features.stages=\[1, 1\]: must be distinct numbers, counted from 1"),
        ({"stages": ()}, r"features.stages=\[\]: must be distinct numbers, counted from 1"),
        ({"max_broken": 1.5}, r"features.max_broken=1.5: must be in \[0, 1\]"),
        (
            {"format": "npy", "stages": (1, 2)},
            r"features.format=npy: holds one array, but features.stages=\[1, 2\] are several; use",
        ),
        (
            {"format": "npz", "dtype": "bf16"},
            "features.format=npz: numpy has no bf16; set features.dtype to fp16 or",
        ),
    ],
)
def test_invalid_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeaturesConfig(**options)
