"""Background of untrimmed videos: what the labelled segments leave of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.data.background import add_background, draw_range, free_ranges, training_range
from hiera_video.data.clip_frames import record_frame_range
from hiera_video.data.dataset import TestViews, TrainClips
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig, FrameRange
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import DecodeError, ManifestError
from hiera_video.video import open_video

CLIP = ClipConfig(num_frames=4, frame_stride=2, target_fps=None)
TIMES = [number / 10 for number in range(100)]


def ranges(*excluded: tuple[float, float]) -> list[tuple[int, int]]:
    """Return first frame and end of each free range of 10 s at 10 fps."""
    found = free_ranges(TIMES, 10, excluded)
    return [(part.first, part.first + part.num_frames) for part in found]


def test_free_ranges() -> None:
    assert ranges((1, 2), (4, 5.5)) == [(0, 10), (20, 40), (55, 100)]
    assert ranges((0, 3), (8, 10)) == [(30, 80)]
    assert ranges((0, 3), (8, 99)) == [(30, 80)]
    assert ranges((1, 5), (2, 3), (4, 6)) == [(0, 10), (60, 100)]  # one inside, one overlapping
    assert ranges((1, 2), (2, 3)) == [(0, 10), (30, 100)]
    assert ranges((0, 4), (4, 12)) == []


def test_every_position_of_a_clip_is_equally_likely() -> None:
    # clips of 11 frames: 10 positions in the first range, none in the second, 30 in the third
    parts = [
        FrameRange(first=0, num_frames=20, fps=10),
        FrameRange(first=30, num_frames=5, fps=10),
        FrameRange(first=50, num_frames=40, fps=10),
    ]
    generator = random.Random(0)
    drawn = [draw_range(parts, 11, generator).first for _ in range(4000)]
    assert drawn.count(30) == 0 and drawn.count(0) / 4000 == pytest.approx(1 / 4, abs=0.03)
    assert draw_range(parts, 100, generator) == parts[2]  # all are too short: the longest


def test_a_clip_that_covers_its_range_is_as_long_as_a_segment() -> None:
    record = Record(path="a", label=2, row=0, excluded_seconds=((1, 2), (4, 7)))
    parts = free_ranges(TIMES, 10, record.excluded_seconds)
    config = replace(CLIP, sampling="segments")
    drawn = [training_range(parts, record, config, random.Random(seed)) for seed in range(50)]
    assert {part.num_frames for part in drawn} == {10, 30}
    covered = {frame for part in drawn for frame in range(part.first, part.first + part.num_frames)}
    assert not covered & {*range(10, 20), *range(40, 70)} and len(covered) > 50
    whole = [FrameRange(first=3, num_frames=9, fps=10)]
    plain = replace(record, excluded_seconds=())
    generator = random.Random(1)
    assert training_range(whole, plain, config, generator) == whole[0]
    assert generator.random() == random.Random(1).random()  # nothing was drawn


@pytest.fixture
def untrimmed(videos: Any) -> Manifest:
    """Two videos of 60 frames at 30 fps with segments, and one without."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        videos.write(name, 60, fps=30)
    (videos.folder / "list.csv").write_text(
        "a.mp4 0 0.5 1\na.mp4 1 1.2 1.5\nb.mp4 0 0 1.5\nc.mp4 1\n"
    )
    (videos.folder / "labels.txt").write_text("up\ndown\n")
    return read_manifest(str(videos.folder / "list.csv"))


def test_background_records(untrimmed: Manifest) -> None:
    found = add_background(untrimmed, 1.0)
    assert found.class_names == ("up", "down", "background") and found.num_classes == 3
    assert found.records[:4] == untrimmed.records
    a, b = ((0.5, 1.0), (1.2, 1.5)), ((0.0, 1.5),)
    assert [
        (Path(record.path).name, record.label, record.row, record.excluded_seconds)
        for record in found.records[4:]
    ] == [("a.mp4", 2, 4, a), ("b.mp4", 2, 5, b), ("a.mp4", 2, 6, a)]
    assert len(add_background(untrimmed, 0.5).records) == 4 + 2
    assert len(add_background(untrimmed, None).records) == 4 + 2  # one a video with segments
    assert found.records[4].part == "None None None ((0.5, 1.0), (1.2, 1.5))"
    assert untrimmed.records[0].part == "0.5 1.0 None"


def test_names_and_labels_of_background(untrimmed: Manifest) -> None:
    named = replace(untrimmed, class_names=("background", "up", "down"))
    found = add_background(named, 1.0)
    assert found.class_names == named.class_names and found.records[-1].label == 0
    several = add_background(untrimmed.to_multi_label(), 1.0)
    assert several.class_names == ("up", "down") and several.records[-1].label == ()
    with pytest.raises(ManifestError, match=r"has no class names, so the background .* labels.txt"):
        add_background(replace(untrimmed, class_names=None), 1.0)
    trimmed = replace(untrimmed, records=untrimmed.records[3:])
    assert add_background(trimmed, None) == trimmed
    with pytest.raises(ManifestError, match=r"has no segments, .* or set data.background=0"):
        add_background(trimmed, 1.0)


Transform = Callable[[np.ndarray, random.Random], ClipSample]


@pytest.fixture
def numbered(videos: Any) -> Transform:
    """Stand in for a transform: returns the numbers of a clip's frames."""
    return lambda frames, generator: videos.numbers(frames)


def test_training_clips_come_from_the_background_and_from_nowhere_else(
    untrimmed: Manifest, numbered: Transform
) -> None:
    manifest = add_background(untrimmed, 1.0)
    data = TrainClips(manifest, CLIP, numbered, seed=3, num_classes=3)
    seen = set[int]()
    for epoch in range(40):
        sample = data[epoch, 4]
        (numbers,) = sample.clips
        assert sample.labels == (2,) and numbers == sorted(numbers)
        # one of 0 to 14, 30 to 35, which is shorter than a clip, and 45 to 59
        assert all(number < 15 for number in numbers) or all(number >= 45 for number in numbers)
        seen |= set(numbers)
        again = TrainClips(manifest, CLIP, numbered, seed=3, num_classes=3)[epoch, 4]
        assert again.clips == sample.clips
    assert seen <= {*range(15), *range(45, 60)} and len(seen) > 20
    assert min(data[0, 5].clips[0]) >= 45


def test_a_test_takes_the_middle_of_the_longest_part(untrimmed: Manifest) -> None:
    manifest = add_background(untrimmed, None)
    b = manifest.records[5]
    with open_video(b.path) as video:
        assert record_frame_range(video, b) == FrameRange(first=45, num_frames=15, fps=30)
    transform = EvalTransform(32, 1, (0.45,) * 3, (0.225,) * 3)
    views = TestViews(manifest, CLIP, transform, num_clips=1)[5]
    (times,) = views.clip_seconds  # type: ignore[union-attr]
    assert times == pytest.approx((48 / 30, 56 / 30))  # of frames 45 to 59, 8 in the middle


def test_a_video_without_background_is_unreadable_for_it(untrimmed: Manifest) -> None:
    full = Record(
        path=untrimmed.records[0].path, label=2, row=0, excluded_seconds=((0, 1), (0.5, 3))
    )
    with open_video(full.path) as video, pytest.raises(DecodeError) as error:
        record_frame_range(video, full)
    assert error.value.reason == "empty_window"
    assert str(error.value).endswith("a.mp4: has no frame outside its labelled segments")
