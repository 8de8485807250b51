"""The batch plan covers each position once, mirrors locally, and shuffles epochs by the seed."""

from __future__ import annotations

import re

import pytest

from hiera_video.data.loading.balanced import balanced_rows
from hiera_video.data.loading.batch_plan import BatchPlan
from hiera_video.errors import ConfigError


def test_two_ranks_of_two_micro_batches_mirror_each_other() -> None:
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
                if batch_size % (world * accumulate):
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
    assert tried == 91


@pytest.mark.parametrize(
    ("batch_size", "world", "accumulate", "expected"),
    [
        (4, 4, 1, [[0], [1], [2], [3]]),
        (4, 2, 2, [[0], [1], [2], [3]]),
        (6, 2, 1, [[0, 1, 2], [3, 4, 5]]),
        (8, 2, 1, [[0, 1, 6, 7], [2, 3, 4, 5]]),  # even: as with mixup
    ],
)
def test_without_mixup_a_part_may_be_one_video(
    batch_size: int, world: int, accumulate: int, expected: list[list[int]]
) -> None:
    """Issue I, section 5."""
    options = {"num_records": 8, "batch_size": batch_size, "seed": 0, "accumulate": accumulate}
    plans = [BatchPlan(**options, world=world, rank=r, pairs=False) for r in range(world)]  # type: ignore[arg-type]
    chunks = [chunk for plan in plans for chunk in plan.micro_batches(0)]
    assert [[slot.position for slot in chunk] for chunk in chunks] == expected
    alone = BatchPlan(num_records=8, batch_size=batch_size, seed=0).micro_batches(0)[0]
    assert sorted(slot for chunk in chunks for slot in chunk) == sorted(alone)


@pytest.mark.parametrize(
    ("batch_size", "world", "accumulate", "expected"),
    [
        (4, 4, 1, [[0, 3], [1, 2], [2, 1], [3, 0]]),
        (2, 1, 2, [[0, 1], [1, 0]]),
        (6, 2, 1, [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]]),
        (3, 3, 1, [[0, 2], [1, 1], [2, 0]]),
    ],
)
def test_an_odd_part_that_is_mixed_loads_the_partners_too(
    batch_size: int, world: int, accumulate: int, expected: list[list[int]]
) -> None:
    """Issue I, section 5: one video a device and step."""
    options = {"num_records": 8, "batch_size": batch_size, "seed": 0, "accumulate": accumulate}
    plans = [BatchPlan(**options, world=world, rank=r) for r in range(world)]  # type: ignore[arg-type]
    chunks = [chunk for plan in plans for chunk in plan.micro_batches(0)]
    assert [[slot.position for slot in chunk] for chunk in chunks] == expected
    alone = BatchPlan(num_records=8, batch_size=batch_size, seed=0).micro_batches(0)[0]
    own = [slot for chunk in chunks for slot in chunk[: plans[0].chunk_size]]
    assert sorted(own) == sorted(alone)


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
        assert plan.chunk_size == batch_size // world // accumulate
        for part in parts:
            samples = [
                position * repeats + repeat for _, _, position in part for repeat in range(repeats)
            ]
            # flipping the local batch is flipping the global one
            assert samples[::-1] == [batch_size * repeats - 1 - sample for sample in samples]
            slots += part[: plan.chunk_size]
    # the same videos at the same positions as with one rank
    assert sorted(slots, key=lambda slot: slot[2]) == alone.micro_batches(step)[0]
    assert sorted(position for _, _, position in slots) == list(range(batch_size))


def test_epochs_are_different_permutations() -> None:
    plan = BatchPlan(num_records=10, batch_size=3, seed=0)
    assert plan.steps_per_epoch == 3
    epochs = [
        [slot for step in range(3) for slot in plan.micro_batches(3 * epoch + step)[0]]
        for epoch in range(4)
    ]
    for epoch, slots in enumerate(epochs):
        assert {slot[0] for slot in slots} == {epoch}
        assert len({slot[1] for slot in slots}) == 9  # no video twice; one is left over
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
            "train.batch_size=60: the manifest has 50 videos, not enough for one step; lower "
            "train.batch_size",
        ),
        (
            {"batch_size": 10, "accumulate": 4},
            "train.batch_size=10: must be a multiple of 4 (1 process x train.accumulate=4); set "
            "it to 8, for example",
        ),
        (
            {"batch_size": 7, "world": 2},
            "train.batch_size=7: must be a multiple of 2 (2 processes x train.accumulate=1); set "
            "it to 6, for example",
        ),
    ],
)
def test_an_impossible_plan_is_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        BatchPlan(**{"num_records": 50, "batch_size": 8, "seed": 0, **options})


def test_the_order_of_an_epoch_as_literals() -> None:
    plan = BatchPlan(num_records=6, batch_size=2, seed=0)
    order = [slot.place for step in range(3) for slot in plan.micro_batches(step)[0]]
    assert order == [5, 4, 1, 2, 0, 3]
    assert plan.rows(0) == range(6)
    balanced = BatchPlan(num_records=6, batch_size=2, seed=0, class_of=(0, 0, 0, 0, 0, 1))
    assert balanced.micro_batches(1) == plan.micro_batches(1)  # places are shuffled, not records
    for epoch in (0, 1, 0):
        assert balanced.rows(epoch) == balanced_rows((0, 0, 0, 0, 0, 1), seed=0, epoch=epoch)
