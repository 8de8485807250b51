"""Copies between host and device for which the host does not wait."""

from __future__ import annotations

import pytest
import torch

from hiera_video.runtime.transfer import copy_to_device, copy_to_host

CPU = torch.device("cpu")


def test_tensors_stay_on_the_cpu() -> None:
    values = torch.tensor([1.0, 2.0])
    assert copy_to_device(values, CPU) is values
    assert copy_to_host(values).result() is values


@pytest.mark.gpu
def test_copies_do_not_wait_and_arrive() -> None:
    """Not in tests/gpu: the copies themselves."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device, values = torch.device("cuda", 0), torch.arange(1000, dtype=torch.float64)
    busy = torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(50):
            busy = (busy @ busy).tanh()
        moved = copy_to_device(values + 1, device)  # its host memory is free at once
        found = copy_to_host(moved * 2)
        moved.zero_()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.tensor.is_pinned() and torch.equal(found.result(), (values + 1) * 2)
