"""Feed training steps to the device."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch

from hiera_video.data.loading.loader import ClipBatch
from hiera_video.runtime.device_feed import DeviceFeed, DeviceLink


def feed_steps(
    loader: Iterator[Sequence[ClipBatch]], device: torch.device, *, link: DeviceLink | None = None
) -> Generator[list[ClipBatch]]:
    """Yield the micro-batches of each step, so that `ClipBatch.to` does not wait for the device.

    On a GPU, one step is read ahead, and the micro-batch behind the one that is being computed is
    staged. So pinned memory holds two micro-batches, and so does the device.

    Args:
        loader: Yields the micro-batches of one step after the other; closed with the generator.
        device: The model's device.
        link: As in `DeviceFeed`; for tests.

    Raises:
        Exception: What `loader` raises, in place of the step that it concerns.
    """
    feed = DeviceFeed(loader, device, lambda batch: batch.tensors(), link=link)
    try:
        for step in feed:
            yield [replace(batch, staged=transfer) for batch, transfer in step]
    finally:
        feed.close()
