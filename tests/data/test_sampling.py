"""The published sampling rules as literal lists; no video and no decoder needed."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from hiera_video.data import sampling as clips
from hiera_video.data.sampling import ClipConfig, FrameRange
from hiera_video.errors import ConfigError

KINETICS = ClipConfig()
SSV2 = ClipConfig(sampling="segments")


def video(num_frames: int, fps: float = 30.0) -> FrameRange:
    return FrameRange(first=0, num_frames=num_frames, fps=fps)


def test_64_frames_are_not_every_fourth() -> None:
    expected = [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]
    assert clips.test_clips(video(64), KINETICS, 1) == [expected]
    assert (
        clips.training_clip(video(64), KINETICS, random.Random(0)) == expected
    )  # only one place to start


@pytest.mark.parametrize(
    ("fps", "span", "indices"),
    [
        (24, 51.2, [0, 3, 6, 10, 13, 16, 20, 23, 26, 30, 33, 36, 40, 43, 46, 50]),
        (25, 160 / 3, [0, 3, 6, 10, 13, 17, 20, 24, 27, 31, 34, 38, 41, 45, 48, 52]),
        (30000 / 1001, 63.936, [0, 4, 8, 12, 16, 20, 25, 29, 33, 37, 41, 46, 50, 54, 58, 62]),
        (50, 320 / 3, [0, 7, 14, 21, 28, 35, 42, 49, 56, 63, 70, 77, 84, 91, 98, 105]),
        (60, 128.0, [0, 8, 16, 25, 33, 42, 50, 59, 67, 76, 84, 93, 101, 110, 118, 127]),
    ],
)
def test_the_same_seconds_at_any_frame_rate(fps: float, span: float, indices: list[int]) -> None:
    assert clips.clip_span(KINETICS, fps) == pytest.approx(span, abs=1e-3)
    assert (
        clips.dense_indices(0, span=clips.clip_span(KINETICS, fps), count=16, num_frames=300)
        == indices
    )
    assert clips.clip_span(ClipConfig(target_fps=None), fps) == 64


def test_starts_of_test_clips() -> None:
    assert clips.uniform_starts(num_frames=100, span=64, num_clips=3) == [0, 18, 36]
    assert clips.uniform_starts(num_frames=100, span=64, num_clips=1) == [18]
    assert clips.uniform_starts(num_frames=300, span=64, num_clips=5) == [0, 59, 118, 177, 236]
    assert clips.uniform_starts(num_frames=250, span=160 / 3, num_clips=5) == [0, 49, 98, 147, 196]
    assert clips.uniform_starts(num_frames=40, span=64, num_clips=5) == [0, 0, 0, 0, 0]
    assert clips.proportional_starts(num_frames=100, span=64, num_clips=3) == [0, 12, 24]
    assert clips.proportional_starts(num_frames=300, span=64, num_clips=5) == pytest.approx(
        [0, 47.2, 94.4, 141.6, 188.8]
    )


def test_the_config_chooses_between_the_two_starts() -> None:
    spread = clips.test_clips(video(100), KINETICS, 3)
    assert [clip[0] for clip in spread] == [0, 18, 36]
    assert spread[2] == [36, 40, 44, 48, 52, 57, 61, 65, 69, 73, 78, 82, 86, 90, 94, 99]
    assert [
        clip[0] for clip in clips.test_clips(video(100), ClipConfig(test_starts="proportional"), 3)
    ] == [0, 12, 24]


def test_short_videos() -> None:
    assert clips.test_clips(video(40), KINETICS, 1) == [
        [0, 4, 8, 12, 16, 21, 25, 29, 33, 37] + [39] * 6
    ]
    looped = clips.test_clips(video(40), ClipConfig(short_videos="loop"), 1)
    assert looped == [[0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 2, 6, 10, 14, 18, 23]]
    assert clips.test_clips(video(1), KINETICS, 2) == [[0] * 16] * 2
    strict = ClipConfig(short_videos="error")
    assert clips.test_clips(video(64), strict, 1)  # exactly long enough
    message = "clip spans 64 frames but the video has 40; lower clip.frame_stride or set clip.short_videos=repeat"
    for call in (
        lambda: clips.test_clips(video(40), strict, 1),
        lambda: clips.training_clip(video(40), strict, random.Random(0)),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            call()
    with pytest.raises(
        ConfigError, match=r"spans 16 frames but the video has 9; lower clip.num_frames"
    ):
        clips.test_clips(video(9), ClipConfig(sampling="segments", short_videos="error"), 1)


def test_random_start_covers_the_room_and_only_that() -> None:
    generator = random.Random(1)
    starts = [clips.random_start(num_frames=100, span=64, generator=generator) for _ in range(2000)]
    assert 0 <= min(starts) < 0.5
    assert 35.5 < max(starts) <= 36
    assert max(max(clips.training_clip(video(100), KINETICS, generator)) for _ in range(500)) <= 99


def test_ssv2_midpoints_and_draws() -> None:
    # seg = 44/16 = 2.75: bounds 0 3 6 8 11 14 16 19 22 25 28 30 33 36 38 41 44 (5.5 → 6, 8.25 → 8, 27.5 → 28 …)
    midpoints = [1, 4, 7, 9, 12, 15, 17, 20, 23, 26, 29, 31, 34, 37, 39, 42]
    assert clips.test_clips(video(45, 12), SSV2, 1) == [midpoints]
    assert clips.segment_midpoints(10, 16) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8]
    bounds = clips.segment_bounds(45, 16)
    assert bounds[:3] == [(0, 3), (3, 6), (6, 8)]
    generator = random.Random(0)
    draws = [clips.training_clip(video(45, 12), SSV2, generator) for _ in range(300)]
    for segment, (first, last) in enumerate(bounds):
        assert {draw[segment] for draw in draws} == set(
            range(first, last + 1)
        )  # both ends included


def test_videomae_interleaved_views() -> None:
    assert clips.segment_views(40, 16) == (
        [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37],
        [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38],
    )
    assert clips.test_clips(video(40, 12), SSV2, 2) == list(clips.segment_views(40, 16))
    with pytest.raises(
        ConfigError, match=r"test.clips=5: clip.sampling=segments has 1 view \(midpoints\) or 2"
    ):
        clips.test_clips(video(40, 12), SSV2, 5)
    with pytest.raises(ConfigError, match=r"test.clips=0: must be 1 or more"):
        clips.test_clips(video(40, 12), SSV2, 0)


def test_windows_of_untrimmed_videos() -> None:
    times = [i / 30 for i in range(300)]
    assert clips.frame_range_of(times, 30, None, None) == FrameRange(
        first=0, num_frames=300, fps=30
    )
    assert clips.frame_range_of(times, 30, 2.0, 4.0) == FrameRange(first=60, num_frames=60, fps=30)
    assert (
        clips.frame_range_of(times, 30, 3.33, None).first == 100
    )  # 3.3333 written with two digits
    assert clips.frame_range_of(times, 30, 8.0, 99.0) == FrameRange(
        first=240, num_frames=60, fps=30
    )
    assert clips.frame_range_of([0.0, 0.1, 1.0, 1.1, 3.0], 5, 0.9, 3.0) == FrameRange(
        first=2, num_frames=2, fps=5
    )  # variable rate
    assert clips.frame_range_of(times, 30, 50.0, 60.0).num_frames == 0
    with pytest.raises(
        ConfigError, match=r"has no frame to sample; check its start and end seconds"
    ):
        clips.training_clip(clips.frame_range_of(times, 30, 50.0, 60.0), KINETICS, random.Random(0))


def test_one_frame_clips() -> None:
    one = ClipConfig(num_frames=1, frame_stride=1)
    assert clips.test_clips(video(9), one, 1) == [[4]]
    assert clips.test_clips(video(9), ClipConfig(num_frames=1, sampling="segments"), 1) == [[4]]


def test_equal_to_torch_linspace_as_the_published_code_has_it() -> None:
    import torch

    for fps in (12, 15, 23.976, 24, 25, 29.97, 30, 48, 50, 60):
        for num_frames in (30, 47, 64, 91, 150, 300):
            span = clips.clip_span(KINETICS, fps)
            for start in clips.uniform_starts(num_frames=num_frames, span=span, num_clips=5):
                published = (
                    torch.linspace(start, start + span - 1, 16)
                    .clamp(0, num_frames - 1)
                    .long()
                    .tolist()
                )
                assert (
                    clips.dense_indices(start, span=span, count=16, num_frames=num_frames)
                    == published
                )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_frames", 0, "clip.num_frames=0: must be 1 or more"),
        ("frame_stride", -1, "clip.frame_stride=-1: must be 1 or more"),
        ("repeats", 0, "clip.repeats=0: must be 1 or more"),
        ("target_fps", 0.0, "clip.target_fps=0.0: must be above 0; leave it unset"),
        ("target_fps", float("nan"), "clip.target_fps=nan: must be above 0"),
        ("sampling", "sparse", "clip.sampling='sparse': choose one of dense, segments"),
        ("short_videos", "pad", "clip.short_videos='pad': choose one of repeat, loop, error"),
        ("test_starts", "end", "clip.test_starts='end': choose one of spread, proportional"),
    ],
)
def test_bad_configs(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        ClipConfig(**{key: value})  # type: ignore[arg-type]


def test_needs_the_standard_library_alone() -> None:
    code = "import sys, hiera_video.data.sampling; assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
