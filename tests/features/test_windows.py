"""Which sliding_windows of a video get a feature: literal starts and frames."""

from __future__ import annotations

from typing import Any

import pytest

from hiera_video.data.sampling import ClipConfig, FrameRange
from hiera_video.features.config import FeaturesConfig
from hiera_video.features.windows import check_windows, count_windows, sliding_windows

CLIP = ClipConfig(num_frames=4, frame_stride=2, target_fps=None)  # spans 8 frames


def cut(
    count: int, *, fps: float = 10.0, clip: ClipConfig = CLIP, first: int = 0, **options: Any
) -> list[Any]:
    times = [frame / fps for frame in range(first + count)]
    found = sliding_windows(
        times,
        fps,
        FrameRange(first=first, num_frames=count, fps=fps),
        clip,
        FeaturesConfig(**options),
    )
    return [(round(s.start_seconds, 6), round(s.end_seconds, 6), s.tail, s.frames) for s in found]


def test_starts() -> None:
    assert count_windows(10, 4, 4) == (2, True)
    assert count_windows(10, 4, 3) == (3, False)
    assert count_windows(10, 4, 1) == (7, False)
    assert count_windows(10.5, 4, 1) == (7, True)
    assert count_windows(3, 4, 4) == (0, True)
    assert count_windows(10, 2, 5) == (2, False)  # the gap between windows is nobody's tail
    assert count_windows(11, 2, 5) == (2, True)
    assert count_windows(3.96, 4, 4, slack=0.05) == (1, False)
    assert count_windows(8.04, 4, 4, slack=0.05) == (2, False)


def test_the_clips_own_length_side_by_side() -> None:
    assert cut(20) == [
        (0.0, 0.8, False, (0, 2, 4, 7)),
        (0.8, 1.6, False, (8, 10, 12, 15)),
        (1.6, 2.0, True, (16, 18, 19, 19)),
    ]
    assert cut(16)[-1][:3] == (0.8, 1.6, False)
    assert cut(20, tail="drop") == cut(20)[:2] and cut(5, tail="drop") == []
    assert cut(3) == [(0.0, 0.3, True, (0, 2, 2, 2))]


def test_seconds_hold_whatever_the_frame_rate() -> None:
    clip = ClipConfig(num_frames=4, frame_stride=2, target_fps=30)
    for fps in (15, 29.97, 30, 50, 60):
        found = cut(round(3 * fps), fps=fps, clip=clip, window=1.0, stride=0.5)
        assert [start for start, *_ in found] == [0.0, 0.5, 1.0, 1.5, 2.0]
        assert not any(tail for _, _, tail, _ in found)
        assert all(
            start - 0.2 / fps <= frame / fps < end
            for start, end, _, frames in found
            for frame in frames
        )


def test_windows_longer_than_the_clip_show_their_middle() -> None:
    assert cut(32, window=1.6) == [
        (0.0, 1.6, False, (4, 6, 8, 11)),
        (1.6, 3.2, False, (20, 22, 24, 27)),
    ]


def test_frames_are_counted_as_they_are() -> None:
    found = cut(20, unit="frames", window=8, stride=6)
    assert [(start, end, tail) for start, end, tail, _ in found] == [
        (0.0, 0.8, False),
        (0.6, 1.4, False),
        (1.2, 2.0, False),
    ]
    assert [frames[0] for *_, frames in found] == [0, 6, 12]
    assert cut(20, unit="frames") == cut(20)


def test_a_record_of_a_stretch_keeps_the_files_clock() -> None:
    assert cut(16, first=30) == [
        (3.0, 3.8, False, (30, 32, 34, 37)),
        (3.8, 4.6, False, (38, 40, 42, 45)),
    ]


def test_a_gap_has_no_window() -> None:
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1]
    config = FeaturesConfig(window=0.5)
    found = sliding_windows(times, 10.0, FrameRange(first=0, num_frames=6, fps=10.0), CLIP, config)
    assert [(stretch.number, stretch.tail) for stretch in found] == [(0, False), (4, True)]
    assert {frame for stretch in found for frame in stretch.frames} <= set(range(6))


def test_segments_are_of_the_whole_video_unless_a_window_is_set() -> None:
    clip = ClipConfig(num_frames=4, sampling="segments")
    assert cut(41, clip=clip) == [(0.0, 4.1, False, (5, 15, 25, 35))]
    assert [row[:3] for row in cut(40, clip=clip, window=2.0)] == [
        (0.0, 2.0, False),
        (2.0, 4.0, False),
    ]


def test_what_makes_no_windows_is_refused() -> None:
    with pytest.raises(
        ValueError, match="short_videos=error: the tail of a video is shorter than a clip; set"
    ):
        check_windows(FeaturesConfig(), ClipConfig(short_videos="error"))
    with pytest.raises(
        ValueError,
        match=r"features.stride=2.0: clip.sampling=segments spreads its frames over any length",
    ):
        check_windows(FeaturesConfig(stride=2.0), ClipConfig(sampling="segments"))
    check_windows(FeaturesConfig(stride=2.0, window=2.0), ClipConfig(sampling="segments"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0.0}, "features.window=0.0: must be above 0 seconds"),
        ({"stride": float("nan")}, "features.stride=nan: must be above 0 seconds"),
        (
            {"window": 2.5, "unit": "frames"},
            "features.window=2.5: features.unit=frames counts whole frames",
        ),
        ({"pooling": "avg"}, "features.pooling='avg': choose one of mean, max, temporal, none"),
        ({"batch_size": 0}, "features.batch_size=0: must be 1 or more"),
        ({"shard_videos": 0}, "features.shard_videos=0: must be 1 or more"),
        ({"stages": (0, 1)}, r"features.stages=\[0, 1\]: stages are counted from 1, each once"),
        ({"stages": (1, 1)}, r"features.stages=\[1, 1\]: stages are counted from 1, each once"),
        ({"stages": ()}, r"features.stages=\[\]: stages are counted from 1, each once"),
        ({"max_broken": 1.5}, r"features.max_broken=1.5: must be in \[0, 1\]"),
        (
            {"format": "npy", "stages": (1, 2)},
            r"features.format=npy: holds one array, features.stages=\[1, 2\] are",
        ),
        (
            {"format": "npz", "dtype": "bf16"},
            "features.format=npz: numpy has no bf16; set features.dtype to fp16 or",
        ),
    ],
)
def test_wrong_values_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FeaturesConfig(**options)
