"""TF32 and cuDNN's trials: on for fast runs on a GPU, off in full float32, unchanged on CPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hiera_video.runtime.cuda import exact_fp32, use_fast_cuda

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def settings() -> tuple[bool, bool, bool]:
    backends = torch.backends
    return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = settings()
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
    torch.backends.cudnn.benchmark = before[2]


def test_fast_settings_are_made_on_a_gpu_alone() -> None:
    before = settings()
    use_fast_cuda(CPU, exact=False)
    use_fast_cuda(CPU, exact=True)
    assert settings() == before
    use_fast_cuda(GPU, exact=False)
    assert settings() == (True, True, True)
    use_fast_cuda(GPU, exact=True)
    assert settings() == (False, False, False)


def test_full_float32_ends_with_the_block() -> None:
    use_fast_cuda(GPU, exact=False)
    with pytest.raises(ValueError, match="inside"), exact_fp32():
        assert settings() == (False, False, True)
        raise ValueError("inside")
    assert settings() == (True, True, True)
