"""Training steps through the device feed: the same batches, staged, with pending crops finished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fake_link import FakeLink

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.data.transforms.clip_sample import Erasure, PendingCrop
from hiera_video.data.transforms.on_device import PendingBatch
from hiera_video.train.feed import feed_steps

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def make_batch(number: int, *, pending: bool) -> ClipBatch:
    generator = torch.Generator().manual_seed(number)
    rows = torch.tensor([number, number + 100])
    common: dict[str, Any] = {
        "labels": rows % 7,
        "row": rows,
        "view": torch.zeros(2, dtype=torch.int64),
        "position": torch.arange(2),
        "substituted": (("a.mp4", "empty"),) * number,
    }
    if not pending:
        return ClipBatch(clips=torch.randn(2, 3, 4, 8, 8, generator=generator), **common)
    noise = torch.randn(4, 3, 2, 3, generator=generator)
    shapes = [(4, 9 + number, 12), (4, 7, 6)]
    crops = [
        PendingCrop(
            shape=shape,
            flip=number % 2 == place,
            erasure=Erasure(top=1, left=2, noise=noise) if place else None,
            size=8,
            mean=(0.4,) * 3,
            std=(0.2,) * 3,
        )
        for place, shape in enumerate(shapes)
    ]
    size = sum(3 * t * h * w for t, h, w in shapes)
    pixels = torch.randint(0, 255, (size,), generator=generator, dtype=torch.uint8)
    return ClipBatch(clips=pixels, pending=PendingBatch.of(crops), **common)


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("size", [1, 3])
def test_staged_batches_equal_plain_ones(size: int, pending: bool) -> None:
    loaded = [
        [make_batch(step * size + place, pending=pending) for place in range(size)]
        for step in range(4)
    ]
    link = FakeLink(late=True, computes=True)
    for step, plain in zip(feed_steps(iter(loaded), GPU, link=link), loaded, strict=True):
        for batch, other in zip(step, plain, strict=True):
            assert batch.row is other.row and batch.substituted == other.substituted
            moved, expected = batch.to(GPU), other.to(CPU)
            assert moved.staged is None and moved.pending is None
            assert moved.clips.shape == (2, 3, 4, 8, 8) and torch.equal(moved.clips, expected.clips)
            assert torch.equal(moved.labels, expected.labels)
            assert moved.position is other.position
    assert len(link.sent) == 4 * size and link.closed


def test_closing_closes_the_loader() -> None:
    closed = []

    def loader() -> Iterator[list[ClipBatch]]:
        try:
            while True:
                yield [make_batch(0, pending=False)]
        finally:
            closed.append(True)

    for device, link in ((CPU, None), (GPU, FakeLink())):
        steps = feed_steps(loader(), device, link=link)
        next(steps)
        steps.close()  # type: ignore[attr-defined]
    assert closed == [True, True]


def test_on_the_cpu_batches_stay_where_they_are() -> None:
    batch = make_batch(0, pending=False)
    ((found,),) = list(feed_steps(iter([[batch]]), CPU))
    assert found.to(CPU).clips is batch.clips
