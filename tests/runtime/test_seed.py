"""Deterministic kernels and the seed of torch's generators."""

from __future__ import annotations

import os

import pytest
import torch

from hiera_video.runtime.seed import seed_modules, use_deterministic_kernels


def test_a_kernel_without_a_deterministic_implementation_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    put = (torch.tensor([0, 0]), torch.ones(2))
    torch.zeros(2).put_(*put)
    try:
        use_deterministic_kernels()
        assert (
            os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            and not torch.backends.cudnn.benchmark
        )
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(2).put_(*put)
    finally:
        torch.use_deterministic_algorithms(False)


def test_seed_modules_equals_torch_manual_seed() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    seed_modules(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
