"""The plan covers each position once and mirrors; batches are the same for any workers; errors and signals arrive."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data.dataset import TestViews, TrainClips, UnreadableVideo, VideoViews
from hiera_video.data.loading.loader import BatchPlan, ClipBatch, test_loader, train_loader
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.multicrop import Crops
from hiera_video.errors import ConfigError, DecodeError

CLIP = ClipConfig(num_frames=2, frame_stride=2, repeats=2)


class Small:
    """A transform that a spawned worker can import: every 8th pixel, and one drawn number."""

    def __call__(self, frames: Any, generator: random.Random) -> torch.Tensor:
        clip = (
            torch.from_numpy(np.ascontiguousarray(frames[:, ::8, ::8])).permute(3, 0, 1, 2).float()
        )
        return clip + generator.random()


class one_view:
    @staticmethod
    def views_of(frames: Any, clips: list[list[int]]) -> Crops:
        shown = torch.stack(
            [
                torch.from_numpy(frames[clip][:, ::8, ::8]).permute(3, 0, 1, 2).float()
                for clip in clips
            ]
        )
        return Crops(clips=shown, boxes=((0, 0, *shown.shape[-2:]),))


def small(frames: Any, generator: random.Random) -> torch.Tensor:
    return Small()(frames, generator)


@pytest.fixture(scope="module")
def manifest(shared_videos: Any) -> Manifest:
    for i in range(9):
        shared_videos.write(f"loader/{i}.mp4", 12)
    listing = shared_videos.folder / "loader/list.csv"
    listing.write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(9)))
    return read_manifest(str(listing))


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


# -- the plan: arithmetic alone ----------------------------------------------------------------------------------------


def test_a_plan_as_literals() -> None:
    chunks = [
        [position for _, _, position in chunk]
        for rank in range(2)
        for chunk in BatchPlan(
            num_records=16, batch_size=16, seed=0, world=2, rank=rank, accumulate=2
        ).micro_batches(0)
    ]
    assert chunks == [[0, 1, 14, 15], [2, 3, 12, 13], [4, 5, 10, 11], [6, 7, 8, 9]]


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_every_small_plan_covers_the_batch_once_and_mirrors_locally(repeats: int) -> None:
    tried = 0
    for batch_size in range(1, 25):
        for world in range(1, 5):
            for accumulate in range(1, 4):
                chunks = world * accumulate
                fits = batch_size % chunks == 0 and (chunks == 1 or batch_size // chunks % 2 == 0)
                if not fits:
                    with pytest.raises(ConfigError):
                        BatchPlan(
                            num_records=50,
                            batch_size=batch_size,
                            seed=1,
                            world=world,
                            accumulate=accumulate,
                        )
                    continue
                tried += 1
                check_plan(batch_size, world, accumulate, repeats)
    assert tried == 57


def check_plan(batch_size: int, world: int, accumulate: int, repeats: int) -> None:
    alone = BatchPlan(num_records=50, batch_size=batch_size, seed=1)
    step = alone.steps_per_epoch + 1 if alone.steps_per_epoch > 1 else 1
    slots = []
    for rank in range(world):
        plan = BatchPlan(
            num_records=50,
            batch_size=batch_size,
            seed=1,
            world=world,
            rank=rank,
            accumulate=accumulate,
        )
        parts = plan.micro_batches(step)
        assert [len(part) for part in parts] == [batch_size // world // accumulate] * accumulate
        for part in parts:
            samples = [
                position * repeats + repeat for _, _, position in part for repeat in range(repeats)
            ]
            # flipping the local batch is flipping the global one
            assert samples[::-1] == [batch_size * repeats - 1 - sample for sample in samples]
            slots += part
    # the same videos at the same positions as one process alone sees
    assert sorted(slots, key=lambda slot: slot[2]) == alone.micro_batches(step)[0]
    assert sorted(position for _, _, position in slots) == list(range(batch_size))


def test_epochs_are_permutations_that_differ() -> None:
    plan = BatchPlan(num_records=10, batch_size=3, seed=0)
    assert plan.steps_per_epoch == 3
    epochs = [
        [slot for step in range(3) for slot in plan.micro_batches(3 * epoch + step)[0]]
        for epoch in range(4)
    ]
    for epoch, slots in enumerate(epochs):
        assert {slot[0] for slot in slots} == {epoch}
        assert len({slot[1] for slot in slots}) == 9  # no video twice in a pass; one is left over
    assert len({tuple(slot[1] for slot in slots) for slots in epochs}) == 4
    other = BatchPlan(num_records=10, batch_size=3, seed=1)
    assert other.micro_batches(0) != plan.micro_batches(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "train.batch_size=0: must be 1 or more"),
        ({"accumulate": 0}, "train.accumulate=0: must be 1 or more"),
        ({"world": 2, "rank": 2}, "rank 2 of 2 processes: must be 0 to 1"),
        (
            {"batch_size": 60},
            "train.batch_size=60: the manifest has 50 videos, not enough for one step; lower train.batch",
        ),
        (
            {"batch_size": 6, "world": 2},
            "train.batch_size=6: 2 processes x train.accumulate=1 need a multiple of 4",
        ),
        (
            {"batch_size": 10, "accumulate": 4},
            "need a multiple of 8, so that each part holds mixup's pairs; set it to one, 8",
        ),
    ],
)
def test_bad_plans(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        BatchPlan(**{"num_records": 50, "batch_size": 8, "seed": 0, **options})


# -- the loaders -------------------------------------------------------------------------------------------------------


def test_what_a_batch_holds(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=4, seed=0, accumulate=2)
    dataset = TrainClips(manifest, CLIP, small, seed=0)
    steps = list(train_loader(dataset, plan, first_step=1, last_step=3, workers=0))
    assert [len(step) for step in steps] == [2, 2]
    batch, slots = steps[0][0], plan.micro_batches(1)[0]
    assert batch.clips.shape == (4, 3, 2, 6, 8)
    assert batch.row.tolist() == [slots[0][1]] * 2 + [slots[1][1]] * 2
    assert batch.labels.tolist() == [row % 4 for row in batch.row.tolist()]
    assert batch.view.tolist() == [0, 1, 0, 1]
    assert batch.position.tolist() == [0, 1, 6, 7]
    assert batch.substituted == ()
    sample = dataset[0, slots[1][1]]
    assert torch.equal(batch.clips[3], sample.clips[1])
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.clips, batch.clips)


def test_multi_label_and_unlabelled_batches(manifest: Manifest) -> None:
    def labels(values: list[Any], **options: Any) -> torch.Tensor:
        records = tuple(
            Record(path=manifest.records[i].path, label=value, row=i)
            for i, value in enumerate(values)
        )
        multi = any(isinstance(value, tuple) for value in values)
        listed = Manifest(records=records, class_names=None, multi_label=multi, source="x")
        dataset = TrainClips(listed, ClipConfig(num_frames=2), small, seed=0, **options)
        plan = BatchPlan(num_records=2, batch_size=2, seed=0)
        batch = next(train_loader(dataset, plan, first_step=0, last_step=1, workers=0))[0]
        return batch.labels[batch.row.argsort()]

    assert labels([(0, 2), (1,)]).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert labels([(0, 2), (1,)], num_classes=5).shape == (2, 5)
    assert labels([None, None], fresh_repeats=True).tolist() == [0, 0]


def test_batches_do_not_depend_on_workers_or_their_start(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=4, seed=0, accumulate=2)
    dataset = TrainClips(manifest, CLIP, Small(), seed=0)
    expected = digest(train_loader(dataset, plan, first_step=0, last_step=6, workers=0))
    assert len(set(expected)) == 6
    for workers in (1, 2, 4):
        assert (
            digest(
                train_loader(
                    dataset, plan, first_step=0, last_step=6, workers=workers, context="fork"
                )
            )
            == expected
        )
    # resumed at step 4
    assert (
        digest(train_loader(dataset, plan, first_step=4, last_step=6, workers=1, context="fork"))
        == expected[4:]
    )


def test_spawned_workers_see_the_same(manifest: Manifest) -> None:
    from hiera_video.data.config import AugmentConfig
    from hiera_video.data.transforms.train_eval import TrainTransform

    plan = BatchPlan(num_records=9, batch_size=4, seed=0)
    dataset = TrainClips(
        manifest, CLIP, TrainTransform(AugmentConfig(), 32), seed=0
    )  # importable, unlike a test's own
    expected = digest(train_loader(dataset, plan, first_step=0, last_step=4, workers=0))
    # one worker: each imports torch anew, which takes seconds
    assert (
        digest(train_loader(dataset, plan, first_step=0, last_step=4, workers=1, context="spawn"))
        == expected
    )


def test_two_ranks_see_what_one_sees(manifest: Manifest) -> None:
    dataset = TrainClips(manifest, CLIP, small, seed=0)

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


def broken_manifest(manifest: Manifest, tmp_path: Path) -> Manifest:
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
def test_errors_arrive_as_what_they_are(manifest: Manifest, tmp_path: Path, workers: int) -> None:
    plan = BatchPlan(num_records=9, batch_size=9, seed=0)
    bad = broken_manifest(manifest, tmp_path)
    dataset = TrainClips(bad, CLIP, small, seed=0, on_broken="error")
    with pytest.raises(
        DecodeError, match=rf"^{re.escape(str(tmp_path))}/text.mp4: cannot be opened as a video"
    ) as caught:
        list(train_loader(dataset, plan, first_step=0, last_step=1, workers=workers))
    assert caught.value.reason == "container"
    short = ClipConfig(num_frames=16, short_videos="error")
    views = TestViews(manifest, short, one_view, num_clips=1)
    with pytest.raises(ConfigError, match=r"0.mp4: clip spans 64 frames but the video has 12"):
        list(test_loader(views, workers=workers, rows=[0]))


def test_substitutions_are_reported(manifest: Manifest, tmp_path: Path) -> None:
    plan = BatchPlan(num_records=9, batch_size=9, seed=0)
    dataset = TrainClips(broken_manifest(manifest, tmp_path), CLIP, small, seed=0)
    batches = [
        step[0] for step in train_loader(dataset, plan, first_step=0, last_step=2, workers=2)
    ]
    for batch in batches:
        assert (str(tmp_path / "text.mp4"), "container") in batch.substituted
        assert 3 not in batch.row.tolist()
        assert len(batch.row) == 18


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_keeps_the_order_and_reports_broken_videos(
    manifest: Manifest, tmp_path: Path, workers: int
) -> None:
    dataset = TestViews(broken_manifest(manifest, tmp_path), CLIP, one_view, num_clips=2)
    items = list(test_loader(dataset, workers=workers, rows=[5, 3, 0]))
    assert [item.row for item in items] == [5, 3, 0]
    assert [type(item) for item in items] == [VideoViews, UnreadableVideo, VideoViews]
    expected = dataset[0]
    assert isinstance(expected, VideoViews)
    assert isinstance(items[2], VideoViews)
    assert torch.equal(items[2].views, expected.views)


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_workers_outlive_signals_and_end_with_the_loader(manifest: Manifest) -> None:
    plan = BatchPlan(num_records=9, batch_size=2, seed=0)
    dataset = TrainClips(manifest, CLIP, small, seed=0)
    before = set(children())
    batches = train_loader(dataset, plan, first_step=0, last_step=40, workers=2, context="fork")
    expected = digest(train_loader(dataset, plan, first_step=0, last_step=40, workers=0))
    got = [next(batches)]
    workers = set(children()) - before
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in workers:
            os.kill(pid, number)
    got += [next(batches) for _ in range(20)]
    assert digest(got) == expected[:21]
    began = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 4
    assert not workers & set(children())
