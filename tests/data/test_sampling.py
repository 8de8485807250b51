"""The published sampling rules as literal lists of frames; no video and no decoder."""

from __future__ import annotations

import random
import re

import pytest

from hiera_video.data import sampling
from hiera_video.data.sampling import ClipConfig, FrameRange
from hiera_video.errors import ConfigError

KINETICS = ClipConfig()
SSV2 = ClipConfig(sampling="segments")


def video(num_frames: int, fps: float = 30.0) -> FrameRange:
    return FrameRange(first=0, num_frames=num_frames, fps=fps)


# -- dense -------------------------------------------------------------------------------------


def test_64_frames_are_not_every_fourth() -> None:
    expected = [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]
    assert sampling.test_clips(video(64), KINETICS, 1) == [expected]
    # the only possible start
    assert sampling.training_clip(video(64), KINETICS, random.Random(0)) == expected


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
def test_a_clip_lasts_equally_long_at_any_frame_rate(
    fps: float, span: float, indices: list[int]
) -> None:
    assert sampling.clip_span(KINETICS, fps) == pytest.approx(span, abs=1e-3)
    span = sampling.clip_span(KINETICS, fps)
    assert sampling.dense_indices(0, span=span, count=16, num_frames=300) == indices
    assert sampling.clip_span(ClipConfig(target_fps=None), fps) == 64


@pytest.mark.parametrize(
    ("num_frames", "span", "num_clips", "starts"),
    [
        (100, 64, 3, [0, 18, 36]),
        (100, 64, 1, [18]),
        (300, 64, 5, [0, 59, 118, 177, 236]),
        (250, 160 / 3, 5, [0, 49, 98, 147, 196]),
        (40, 64, 5, [0, 0, 0, 0, 0]),
    ],
)
def test_uniform_starts(num_frames: int, span: float, num_clips: int, starts: list[int]) -> None:
    found = sampling.uniform_starts(num_frames=num_frames, span=span, num_clips=num_clips)
    assert found == starts


def test_proportional_starts() -> None:
    assert sampling.proportional_starts(num_frames=100, span=64, num_clips=3) == [0, 12, 24]
    starts = sampling.proportional_starts(num_frames=300, span=64, num_clips=5)
    assert starts == pytest.approx([0, 47.2, 94.4, 141.6, 188.8])


def test_test_starts_selects_the_rule() -> None:
    spread = sampling.test_clips(video(100), KINETICS, 3)
    assert [clip[0] for clip in spread] == [0, 18, 36]
    assert spread[2] == [36, 40, 44, 48, 52, 57, 61, 65, 69, 73, 78, 82, 86, 90, 94, 99]
    proportional = sampling.test_clips(video(100), ClipConfig(test_starts="proportional"), 3)
    assert [clip[0] for clip in proportional] == [0, 12, 24]


def test_random_starts_cover_all_positions_that_fit() -> None:
    generator = random.Random(1)
    starts = [
        sampling.random_start(num_frames=100, span=64, generator=generator) for _ in range(2000)
    ]
    assert 0 <= min(starts) < 0.5
    assert 35.5 < max(starts) <= 36
    clips = [sampling.training_clip(video(100), KINETICS, generator) for _ in range(500)]
    assert max(map(max, clips)) <= 99


def test_short_videos() -> None:
    repeated = sampling.test_clips(video(40), KINETICS, 1)
    assert repeated == [[0, 4, 8, 12, 16, 21, 25, 29, 33, 37] + [39] * 6]
    looped = sampling.test_clips(video(40), ClipConfig(short_videos="loop"), 1)
    assert looped == [[0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 2, 6, 10, 14, 18, 23]]
    assert sampling.test_clips(video(1), KINETICS, 2) == [[0] * 16] * 2


def test_short_videos_may_be_an_error() -> None:
    strict = ClipConfig(short_videos="error")
    assert sampling.test_clips(video(64), strict, 1)  # exactly long enough
    message = (
        "clip spans 64 frames but the video has 40; "
        "lower clip.frame_stride or set clip.short_videos=repeat"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        sampling.test_clips(video(40), strict, 1)
    with pytest.raises(ConfigError, match=re.escape(message)):
        sampling.training_clip(video(40), strict, random.Random(0))
    segments = ClipConfig(sampling="segments", short_videos="error")
    with pytest.raises(
        ConfigError, match=r"spans 16 frames but the video has 9; lower clip.num_frames"
    ):
        sampling.test_clips(video(9), segments, 1)
    # 53.3 frames at 25 fps end at index 52
    assert sampling.test_clips(video(53, 25), strict, 1)
    with pytest.raises(ConfigError, match=r"clip spans 53.3333 frames but the video has 52"):
        sampling.test_clips(video(52, 25), strict, 1)


def test_equal_to_torch_linspace_as_in_pyslowfast() -> None:
    import torch

    for fps in (12, 15, 23.976, 24, 25, 29.97, 30, 48, 50, 60):
        for num_frames in (30, 47, 64, 91, 150, 300):
            span = sampling.clip_span(KINETICS, fps)
            for start in sampling.uniform_starts(num_frames=num_frames, span=span, num_clips=5):
                positions = torch.linspace(start, start + span - 1, 16)
                expected = positions.clamp(0, num_frames - 1).long().tolist()
                found = sampling.dense_indices(start, span=span, count=16, num_frames=num_frames)
                assert found == expected


def test_a_clip_shorter_than_a_frame_repeats_it() -> None:
    """At 0.2 fps, 16×4 frames at 30 fps last less than one frame: the span is 0.43."""
    assert sampling.clip_span(KINETICS, 0.2) < 0.5
    assert sampling.dense_indices(7.9, span=0.43, count=16, num_frames=10) == [7] * 16
    assert sampling.test_clips(video(10, 0.2), KINETICS, 3) == [[0] * 16, [4] * 16, [8] * 16]


def test_frame_indices_never_descend() -> None:
    """Whatever the frame rate, the length and the start; only `loop` may wrap, and once a lap."""
    generator = random.Random("never descend")
    for _ in range(3000):
        fps = 10 ** generator.uniform(-4, 4)
        length = generator.choice([1, 2, 3, generator.randint(4, 400)])
        config = ClipConfig(
            num_frames=generator.choice([1, 2, 8, 16, 33]),
            frame_stride=generator.choice([1, 2, 4, 30]),
            target_fps=generator.choice([None, 30.0, 0.5, 240.0]),
            sampling=generator.choice(["dense", "segments"]),
            test_starts=generator.choice(["spread", "proportional"]),
            short_videos=generator.choice(["repeat", "loop"]),
        )
        clips = [
            sampling.training_clip(video(length, fps), config, generator),
            *sampling.test_clips(video(length, fps), config, generator.choice([1, 2])),
        ]
        wraps = config.short_videos == "loop" and sampling.clip_span(config, fps) > length
        for clip in clips:
            assert len(clip) == config.num_frames
            assert 0 <= min(clip) <= max(clip) < length
            assert wraps or clip == sorted(clip), (fps, length, config)


# -- segments ----------------------------------------------------------------------------------


def test_segment_midpoints() -> None:
    # a segment is 44/16 = 2.75: bounds 0 3 6 8 11 14 16 19 22 25 28 30 33 36 38 41 44
    midpoints = [1, 4, 7, 9, 12, 15, 17, 20, 23, 26, 29, 31, 34, 37, 39, 42]
    assert sampling.test_clips(video(45, 12), SSV2, 1) == [midpoints]
    midpoints = [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8]
    assert sampling.segment_midpoints(10, 16) == midpoints


def test_random_segment_frames_include_both_ends() -> None:
    bounds = sampling.segment_bounds(45, 16)
    assert bounds[:3] == [(0, 3), (3, 6), (6, 8)]
    generator = random.Random(0)
    clips = [sampling.training_clip(video(45, 12), SSV2, generator) for _ in range(300)]
    for segment, (first, last) in enumerate(bounds):
        assert {clip[segment] for clip in clips} == set(range(first, last + 1))


def test_interleaved_views() -> None:
    assert sampling.interleaved_views(40, 16) == (
        [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37],
        [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38],
    )
    views = sampling.test_clips(video(40, 12), SSV2, 2)
    assert views == list(sampling.interleaved_views(40, 16))


def test_numbers_of_clips_without_a_rule() -> None:
    with pytest.raises(
        ConfigError, match=r"test.clips=5: clip.sampling=segments has 1 view \(midpoints\) or 2"
    ):
        sampling.test_clips(video(40, 12), SSV2, 5)
    with pytest.raises(ConfigError, match=r"test.clips=0: must be 1 or more"):
        sampling.test_clips(video(40, 12), SSV2, 0)


def test_one_frame_clips() -> None:
    one = ClipConfig(num_frames=1, frame_stride=1)
    assert sampling.test_clips(video(9), one, 1) == [[4]]
    segment = ClipConfig(num_frames=1, sampling="segments")
    assert sampling.test_clips(video(9), segment, 1) == [[4]]


# -- ranges of untrimmed videos ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_seconds", "end_seconds", "first", "num_frames"),
    [
        (None, None, 0, 300),
        (2.0, 4.0, 60, 60),
        (3.33, None, 100, 200),  # frame 100 is at 3.3333 s
        (8.0, 99.0, 240, 60),
        (50.0, 60.0, 300, 0),
    ],
)
def test_frame_ranges(
    start_seconds: float | None, end_seconds: float | None, first: int, num_frames: int
) -> None:
    times = [i / 30 for i in range(300)]
    found = sampling.frame_range_of(times, 30, start_seconds, end_seconds)
    assert found == FrameRange(first=first, num_frames=num_frames, fps=30)


def test_frame_range_at_a_variable_rate() -> None:
    found = sampling.frame_range_of([0.0, 0.1, 1.0, 1.1, 3.0], 5, 0.9, 3.0)
    assert found == FrameRange(first=2, num_frames=2, fps=5)


def test_an_empty_range_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"has no frame to sample; check its start and end seconds"
    ):
        sampling.training_clip(video(0), KINETICS, random.Random(0))


# -- configuration -----------------------------------------------------------------------------


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
