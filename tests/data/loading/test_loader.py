"""Batches are the same for any number of workers and ranks; errors and substitutions arrive."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from hiera_video.data.config import AugmentConfig
from hiera_video.data.dataset import TestViews, TrainClips, UnreadableVideo, VideoViews
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.data.loading.loader import ClipBatch, test_loader, train_loader
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform, TrainTransform
from hiera_video.errors import ConfigError, DecodeError

CLIP = ClipConfig(num_frames=2, frame_stride=2, repeats=2)
CROP = TrainTransform(AugmentConfig(), 16)
VIEW = EvalTransform(16, 1, (0.45,) * 3, (0.225,) * 3)


def digest(batches: Iterable[list[ClipBatch]]) -> list[str]:
    return [
        hashlib.sha256(
            b"".join(
                tensor.numpy().tobytes()
                for batch in step
                for tensor in (batch.clips, batch.labels, batch.row, batch.view, batch.position)
            )
        ).hexdigest()
        for step in batches
    ]


def test_contents_of_a_batch(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=4, seed=0, accumulate=2)
    dataset = TrainClips(manifest, CLIP, CROP, seed=0)
    steps = list(train_loader(dataset, plan, first_step=1, last_step=3, workers=0))
    assert [len(step) for step in steps] == [2, 2]
    batch, slots = steps[0][0], plan.micro_batches(1)[0]
    assert batch.clips.shape == (4, 3, 2, 16, 16)
    assert batch.row.tolist() == [slots[0].place] * 2 + [slots[1].place] * 2
    assert batch.labels.tolist() == [row % 4 for row in batch.row.tolist()]
    assert batch.view.tolist() == [0, 1, 0, 1]
    assert batch.position.tolist() == [0, 1, 6, 7]
    assert batch.substituted == ()
    sample = dataset[0, slots[1].place]
    assert torch.equal(batch.clips[3], sample.clips[1].pixels)
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.clips, batch.clips)


def test_a_balanced_plan_loads_the_records_that_it_places(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=3, seed=0, class_of=(0,) * 8 + (1,))
    dataset = TrainClips(manifest, CLIP, CROP, seed=0)
    for step, (batch,) in enumerate(
        train_loader(dataset, plan, first_step=0, last_step=6, workers=0)
    ):
        (slots,) = plan.micro_batches(step)
        rows = plan.rows(step // 3)
        assert batch.row[::2].tolist() == [rows[slot.place] for slot in slots]
        # random numbers depend on the place, so a repeated video is augmented differently
        sample = dataset.samples(slots[0].epoch, slots[0].place, rows=rows)
        assert torch.equal(batch.clips[1], sample.clips[1].pixels)


def test_multi_label_and_unlabelled_batches(manifest: Manifest) -> None:
    def labels(values: list[Any], **options: Any) -> torch.Tensor:
        records = tuple(
            Record(path=manifest.records[i].path, label=value, row=i)
            for i, value in enumerate(values)
        )
        multi = any(isinstance(value, tuple) for value in values)
        listed = Manifest(records=records, class_names=None, multi_label=multi, source="x")
        dataset = TrainClips(listed, ClipConfig(num_frames=2), CROP, seed=0, **options)
        plan = BatchPlan(num_records=2, batch_size=2, seed=0)
        batch = next(train_loader(dataset, plan, first_step=0, last_step=1, workers=0))[0]
        return batch.labels[batch.row.argsort()]

    assert labels([(0, 2), (1,)]).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert labels([(0, 2), (1,)], num_classes=5).shape == (2, 5)
    assert labels([None, None], independent_repeats=True).tolist() == [0, 0]


def test_batches_do_not_depend_on_workers_or_their_start(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=4, seed=0, accumulate=2)
    dataset = TrainClips(manifest, CLIP, CROP, seed=0)

    def load(workers: int, first_step: int = 0) -> list[str]:
        return digest(
            train_loader(
                dataset, plan, first_step=first_step, last_step=6, workers=workers, context="fork"
            )
        )

    expected = load(0)
    assert len(set(expected)) == 6
    assert all(load(workers) == expected for workers in (1, 2, 4))
    assert load(1, first_step=4) == expected[4:]  # resumed


@pytest.mark.slow
def test_spawned_workers_yield_the_same_batches(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=4, seed=0)
    dataset = TrainClips(manifest, CLIP, CROP, seed=0)
    expected = digest(train_loader(dataset, plan, first_step=0, last_step=4, workers=0))
    spawned = train_loader(dataset, plan, first_step=0, last_step=4, workers=1, context="spawn")
    assert digest(spawned) == expected


def test_two_ranks_take_the_samples_of_one(manifest: Manifest) -> None:
    dataset = TrainClips(manifest, CLIP, CROP, seed=0)

    def samples(world: int) -> dict[int, torch.Tensor]:
        found = {}
        for rank in range(world):
            plan = BatchPlan(num_records=9, batch_size=8, seed=0, world=world, rank=rank)
            for step in train_loader(dataset, plan, first_step=0, last_step=1, workers=0):
                for batch in step:
                    found |= dict(zip(batch.position.tolist(), batch.clips))
        return found

    one, two = samples(1), samples(2)
    assert one.keys() == two.keys() == set(range(16))
    assert all(torch.equal(one[position], two[position]) for position in one)


def with_unreadable_video(manifest: Manifest, tmp_path: Path) -> Manifest:
    path = tmp_path / "text.mp4"
    path.write_text("not a video " * 50)
    records = tuple(
        Record(
            path=str(path) if record.row == 3 else record.path, label=record.label, row=record.row
        )
        for record in manifest.records
    )
    return Manifest(records=records, class_names=None, multi_label=False, source="x")


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_keep_their_type_and_words(manifest: Manifest, tmp_path: Path, workers: int) -> None:
    plan = BatchPlan(num_records=9, batch_size=9, seed=0)
    unreadable = with_unreadable_video(manifest, tmp_path)
    dataset = TrainClips(unreadable, CLIP, CROP, seed=0, on_broken="error")
    with pytest.raises(
        DecodeError, match=rf"^{re.escape(str(tmp_path))}/text.mp4: cannot be opened as a video"
    ) as caught:
        list(train_loader(dataset, plan, first_step=0, last_step=1, workers=workers))
    assert caught.value.reason == "container"
    short = ClipConfig(num_frames=16, short_videos="error")
    views = TestViews(manifest, short, VIEW, num_clips=1)
    with pytest.raises(ConfigError, match=r"0.mp4: .*64 frames but the video has 12"):
        list(test_loader(views, workers=workers, rows=[0]))


@pytest.mark.parametrize("class_of", [None, (0, 0, 0, 0, 0, 0, 0, 1, 1)])
def test_substitutions_are_reported(
    manifest: Manifest, tmp_path: Path, class_of: tuple[int, ...] | None
) -> None:
    plan = BatchPlan(num_records=9, batch_size=9, seed=0, class_of=class_of)
    dataset = TrainClips(with_unreadable_video(manifest, tmp_path), CLIP, CROP, seed=0)
    loader = train_loader(dataset, plan, first_step=0, last_step=3, workers=2)
    batches = [batch for (batch,) in loader]
    assert all(len(batch.row) == 18 and 3 not in batch.row.tolist() for batch in batches)
    for epoch, batch in enumerate(batches):
        times = plan.rows(epoch).count(3)
        assert batch.substituted.count((str(tmp_path / "text.mp4"), "container")) >= times


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_keeps_the_order_and_reports_unreadable_videos(
    manifest: Manifest, tmp_path: Path, workers: int
) -> None:
    dataset = TestViews(with_unreadable_video(manifest, tmp_path), CLIP, VIEW, num_clips=2)
    items = list(test_loader(dataset, workers=workers, rows=[5, 3, 0]))
    assert [item.row for item in items] == [5, 3, 0]
    assert [type(item) for item in items] == [VideoViews, UnreadableVideo, VideoViews]
    expected = dataset[0]
    assert isinstance(expected, VideoViews) and isinstance(items[2], VideoViews)
    assert torch.equal(items[2].views, expected.views)
