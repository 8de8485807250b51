"""Samples depend on (seed, epoch, place); unreadable videos are substituted or reported."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data.config import AugmentConfig
from hiera_video.data.dataset import (
    TestViews,
    TrainClips,
    UnreadableVideo,
    VideoViews,
    explain_unreadable,
)
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig, test_clips, training_clip
from hiera_video.data.transforms.clip_sample import ClipSample
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.data.transforms.train_eval import EvalTransform, TrainTransform
from hiera_video.errors import ConfigError, DecodeError, ManifestError
from hiera_video.video.pyav import PyAVReader

CLIP = ClipConfig(num_frames=4, frame_stride=2)


def keep_pixels(frames: Any, generator: random.Random) -> ClipSample:
    """Keep the pixels, and write one drawn number into the first of each frame."""
    clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float()
    clip[:, :, 0, 0] = generator.random()
    return ClipSample(pixels=clip)


class NegativeCrops:
    """Two crops of each clip: the frames and their negative."""

    @staticmethod
    def views_of(frames: Any, clips: list[list[int]]) -> Crops:
        shown = torch.stack(
            [torch.from_numpy(frames[clip]).permute(3, 0, 1, 2).float() for clip in clips]
        )
        height, width = frames.shape[1:3]
        both = torch.cat([shown, 255 - shown], dim=-1)
        return Crops(clips=both, boxes=((0, 0, height, width), (0, width, height, width)))


def numbers_of(videos: Any, clip: torch.Tensor) -> list[int]:
    found: list[int] = videos.numbers(clip.permute(1, 2, 3, 0).numpy())
    return found


@pytest.fixture(scope="module")
def manifest(shared_videos: Any) -> Manifest:
    for i in range(6):
        shared_videos.write(f"set/{i}.mp4", 40 + i)
    listing = shared_videos.folder / "set/list.csv"
    listing.write_text("".join(f"{i}.mp4 {i % 3}\n" for i in range(6)))
    return read_manifest(str(listing))


def with_missing(manifest: Manifest, *rows: int) -> Manifest:
    records = [
        Record(
            path=str(Path(r.path).with_name("gone.mp4")) if r.row in rows else r.path,
            label=r.label,
            row=r.row,
        )
        for r in manifest.records
    ]
    return Manifest(records=tuple(records), class_names=None, multi_label=False, source="list.csv")


def test_a_training_sample_is_a_clip_of_its_record(manifest: Manifest, videos: Any) -> None:
    dataset = TrainClips(manifest, CLIP, keep_pixels, seed=0)
    sample = dataset[3, 4]
    assert (sample.labels, sample.row, sample.substituted) == ((1,), 4, ())
    generator = random.Random("clip/0/3/4")
    with PyAVReader(manifest.records[4].path) as video:
        expected = training_clip(video.info, CLIP, generator)
    assert numbers_of(videos, sample.clips[0].pixels) == expected
    assert float(sample.clips[0].pixels[0, 0, 0, 0]) == pytest.approx(generator.random())
    again = dataset[3, 4]
    assert torch.equal(sample.clips[0].pixels, again.clips[0].pixels)
    draws = {float(dataset[epoch, 4].clips[0].pixels[0, 0, 0, 0]) for epoch in range(5)}
    assert len(draws) == 5  # another epoch, another sample
    other_seed = TrainClips(manifest, CLIP, keep_pixels, seed=1)[3, 4]
    assert not torch.equal(sample.clips[0].pixels, other_seed.clips[0].pixels)


def test_repeats_augment_one_clip_or_draw_several(
    manifest: Manifest, videos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    frames = PyAVReader.frames
    monkeypatch.setattr(
        PyAVReader, "frames", lambda self, indices: calls.append(1) or frames(self, indices)
    )
    clip = ClipConfig(num_frames=4, frame_stride=2, repeats=3)
    same = TrainClips(manifest, clip, keep_pixels, seed=0)[0, 0]
    assert len({tuple(numbers_of(videos, clip.pixels)) for clip in same.clips}) == 1
    assert (
        len({float(clip.pixels[0, 0, 0, 0]) for clip in same.clips}) == 3
    )  # each augmented on its own
    drawn = TrainClips(manifest, clip, keep_pixels, seed=0, independent_repeats=True)[0, 0]
    assert len({tuple(numbers_of(videos, clip.pixels)) for clip in drawn.clips}) == 3
    assert len(calls) == 2  # decoded once each


def test_shapes_with_the_real_transforms(manifest: Manifest) -> None:
    dataset = TrainClips(manifest, CLIP, TrainTransform(AugmentConfig(), 32), seed=0)
    assert dataset[0, 0].clips[0].pixels.shape == (3, 4, 32, 32)
    crops = EvalTransform(32, 3, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
    views = TestViews(manifest, CLIP, crops, num_clips=2)[0]
    assert isinstance(views, VideoViews)
    assert views.views.shape == (6, 3, 4, 32, 32)
    assert views.views.dtype == torch.float32


def test_bits_do_not_depend_on_the_number_of_threads(videos: Any) -> None:
    videos.write("flat/a.mp4", 8, width=336, height=256)
    listing = videos.folder / "list.csv"
    listing.write_text("flat/a.mp4 0\n")
    large = read_manifest(str(listing))
    train = TrainClips(large, CLIP, TrainTransform(AugmentConfig(), 224), seed=0)
    test = TestViews(
        large, CLIP, EvalTransform(224, 3, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)), num_clips=1
    )
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            views = test[0]
            assert isinstance(views, VideoViews)
            found.append((train[0, 0].clips[0].pixels, views.views))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_unreadable_videos_are_substituted_in_training(manifest: Manifest) -> None:
    dataset = TrainClips(with_missing(manifest, 1, 2), CLIP, keep_pixels, seed=0)
    first, again = dataset[0, 1], dataset[0, 1]
    assert first.row == again.row
    assert first.row not in (1, 2)
    assert first.labels == (manifest.records[first.row].label,)
    assert first.substituted[0] == (
        str(Path(manifest.records[1].path).with_name("gone.mp4")),
        "missing",
    )
    assert torch.equal(first.clips[0].pixels, again.clips[0].pixels)
    assert len({dataset[epoch, 1].row for epoch in range(20)}) > 1
    strict = TrainClips(with_missing(manifest, 1), CLIP, keep_pixels, seed=0, on_broken="error")
    with pytest.raises(DecodeError, match=r"gone.mp4: no such file"):
        strict[0, 1]


def test_substitution_is_bounded(manifest: Manifest) -> None:
    dataset = TrainClips(with_missing(manifest, *range(6)), CLIP, keep_pixels, seed=0)
    words = "gone.mp4: no such file; check data.root, and that its disk is mounted$"
    with pytest.raises(DecodeError, match=words) as caught:
        dataset[0, 0]
    assert caught.value.reason == "missing"
    error = DecodeError("a.mp4: a folder", reason="not_a_file")
    skipped = [("a.mp4", "not_a_file"), ("b.mp4", "not_a_file"), ("a.mp4", "not_a_file")]
    explained = explain_unreadable(error, skipped)
    assert str(explained) == "a.mp4: a folder; 1 other video could not be read either"
    assert explained.reason == "not_a_file"


def test_segments_of_untrimmed_videos(manifest: Manifest, videos: Any) -> None:
    path = manifest.records[0].path
    records = (
        Record(path=path, label=0, row=0, start_seconds=0.5, end_seconds=1.0),
        Record(path=path, label=0, row=1, start_seconds=8.0, end_seconds=9.0),
    )
    part = Manifest(records=records, class_names=None, multi_label=False, source="x")
    dataset = TrainClips(part, CLIP, keep_pixels, seed=0, on_broken="error")
    seen = {
        number
        for epoch in range(30)
        for number in numbers_of(videos, dataset[epoch, 0].clips[0].pixels)
    }
    # frames 15 to 29; the last one only from the last possible start
    assert (min(seen), max(seen)) == (15, 28)
    with pytest.raises(
        DecodeError, match=r"has no frame from 8.0 to 9.0 s; its frames are at 0.00 to 1.30 s"
    ) as caught:
        dataset[0, 1]
    assert caught.value.reason == "empty_window"
    views = TestViews(part, CLIP, NegativeCrops, num_clips=1)[0]
    assert isinstance(views, VideoViews)
    assert numbers_of(videos, views.views[0]) == [18, 20, 22, 25]
    assert views.clip_seconds == (pytest.approx((18 / 30, 26 / 30)),)


def test_test_views(manifest: Manifest, videos: Any) -> None:
    dataset = TestViews(manifest, CLIP, NegativeCrops, num_clips=3)
    views = dataset[2]
    assert isinstance(views, VideoViews)
    assert (views.row, views.views.shape) == (2, (6, 3, 4, 48, 64))
    with PyAVReader(manifest.records[2].path) as video:
        expected = test_clips(video.info, CLIP, 3)
    assert [numbers_of(videos, views.views[2 * i]) for i in range(3)] == expected
    assert torch.equal(views.views[3], 255 - views.views[2])  # the crops of a clip side by side
    assert views.clip_seconds[2] == pytest.approx((expected[2][0] / 30, (expected[2][-1] + 1) / 30))


def test_unreadable_videos_are_reported_in_tests(manifest: Manifest) -> None:
    item = TestViews(with_missing(manifest, 1), CLIP, NegativeCrops, num_clips=1)[1]
    assert isinstance(item, UnreadableVideo)
    assert (item.row, item.reason, Path(item.path).name) == (1, "missing", "gone.mp4")
    assert "gone.mp4: no such file" in item.message


def test_clips_that_exceed_the_memory_limit_together_are_decoded_apart(
    manifest: Manifest, videos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # room for one clip of four frames, not for the nine different frames of three
    monkeypatch.setattr("hiera_video.data.clip_frames.AT_ONCE_BYTES", 64 * 48 * 3 * 4)
    views = TestViews(manifest, CLIP, NegativeCrops, num_clips=3)[0]
    assert isinstance(views, VideoViews)
    assert [numbers_of(videos, views.views[2 * i])[0] for i in range(3)] == [0, 16, 32]


def test_impossible_datasets_are_refused(manifest: Manifest) -> None:
    unlabelled = Manifest(
        records=(Record(path="a.mp4", label=None, row=0),),
        class_names=None,
        multi_label=False,
        source="list.csv",
    )
    with pytest.raises(
        ManifestError, match=r"list.csv: a.mp4 has no label; write `path label` lines"
    ):
        TrainClips(unlabelled, CLIP, keep_pixels, seed=0)
    # pre-training needs no labels
    TrainClips(unlabelled, CLIP, keep_pixels, seed=0, independent_repeats=True)
    empty = Manifest(records=(), class_names=None, multi_label=False, source="list.csv")
    with pytest.raises(ManifestError, match=r"list.csv: holds no videos to train on"):
        TrainClips(empty, CLIP, keep_pixels, seed=0)
    with pytest.raises(ConfigError, match=r"test.clips=5: clip.sampling=segments has 1 view"):
        TestViews(manifest, ClipConfig(sampling="segments"), NegativeCrops, num_clips=5)


def test_the_error_of_a_short_video_names_it(manifest: Manifest) -> None:
    strict = ClipConfig(num_frames=16, frame_stride=4, short_videos="error")
    words = (
        r"0.mp4: clip spans 64 frames but the video has 40; lower clip.frame_stride or set "
        "clip.short_videos=repeat"
    )
    with pytest.raises(ConfigError, match=words):
        TrainClips(manifest, strict, keep_pixels, seed=0)[0, 0]
    with pytest.raises(ConfigError, match=words):
        TestViews(manifest, strict, NegativeCrops, num_clips=1)[0]
