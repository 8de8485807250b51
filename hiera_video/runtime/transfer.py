"""Small copies between host and device for which the host does not wait."""

from __future__ import annotations

import torch
from torch import Tensor

from hiera_video.runtime.device_feed import HostCopy


def copy_to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return `values` on `device`; the copy from a CPU to a GPU is queued behind earlier work.

    torch reuses the pinned memory only after the copy, so that `values` may be dropped at once.
    """
    if device.type == "cuda" and values.device.type == "cpu" and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def copy_to_host(values: Tensor) -> HostCopy:
    """Return a copy of `values` that is queued behind earlier work of its device."""
    if not values.is_cuda:
        return HostCopy(values, None)
    copy = values.to("cpu", non_blocking=True)  # torch pins the memory of such a copy
    return HostCopy(copy, torch.cuda.current_stream(values.device).record_event())
