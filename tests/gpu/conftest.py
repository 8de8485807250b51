"""Fixtures of the tests that need a GPU; `HIERA_TEST_DEVICE=cpu` tries them out without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.video.encode import write_video

sys.path.insert(0, str(Path(__file__).parent))  # tests import gpu_helpers.py from here
# cuBLAS reads this once, at the first product of the process; see use_deterministic_kernels
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
TRIAL = os.environ.get("HIERA_TEST_DEVICE") == "cpu"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or the CPU for a trial of the tests."""
    if TRIAL:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; HIERA_TEST_DEVICE=cpu tries these tests on the CPU")
    return torch.device("cuda", 0)


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The GPU; for tests that the CPU cannot try out."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")
    return device


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Restore torch's settings, and compute float32 in full."""
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
    torch.backends.cudnn.benchmark = before[2]
    torch.use_deterministic_algorithms(before[3])


@pytest.fixture(scope="session")
def movies(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of a square that moves right (0) or left (1), `train.csv` and `val.csv`."""
    folder = tmp_path_factory.mktemp("movies")
    lines = []
    for number in range(8):
        label, name = number % 2, f"{number}.mp4"
        frames = np.full((20, 40, 48, 3), 30 + 5 * number, np.uint8)
        for time in range(20):
            left = 2 * time if label == 0 else 38 - 2 * time
            frames[time, 10 + number : 20 + number, left : left + 10] = 250
        write_video(folder / name, frames, fps=12)
        lines.append(f"{name} {label}\n")
    (folder / "train.csv").write_text("".join(lines))
    (folder / "val.csv").write_text("".join(lines[:4]))
    (folder / "labels.txt").write_text("to the right\nto the left\n")
    return folder


@pytest.fixture(scope="session")
def trained(movies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch on the GPU in full float32."""
    from gpu_helpers import train_arguments

    from hiera_video.cli import train

    run = tmp_path_factory.mktemp("trained") / "run"
    assert train.main(train_arguments(movies, run)) == 0
    return run
