"""Tiny videos of which one is unreadable, a model that tells them apart, and an extraction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.config.schema import Config
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.video.encode import write_video
from hiera_video.workflows.extract import read_input, resolve_config, run_extraction

MOTION = Path(__file__).parents[2] / "configs" / "motion_hiera_micro.yaml"
FRAMES = (40, 16, 7, 90, 33, 50, 16, 64)
"""Frames of each video; a clip spans 16."""
UNREADABLE = 4
"""Row of the video that is not a video."""


def contents(output: Path) -> dict[str, bytes]:
    """Return every file of an extraction, by its path."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0.mp4` … `7.mp4`, 12 frames per second."""
    folder = tmp_path_factory.mktemp("videos")
    for number, count in enumerate(FRAMES):
        still = np.random.default_rng(number).integers(0, 255, (36, 48, 3), dtype=np.uint8)
        frames = (np.roll(still, 3 * t, axis=(0, 1)[t % 2]) for t in range(count))
        write_video(folder / f"{number}.mp4", frames, fps=12)
    (folder / f"{UNREADABLE}.mp4").write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Micro Hiera with weights large enough that clips get different features."""
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                generator = torch.Generator().manual_seed(parameter.numel())
                parameter.normal_(std=0.1, generator=generator)
    return save_pretrained(model, tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture(scope="session")
def make_config(folder: Path, weights: Path) -> Callable[..., Config]:
    """`make_config(output, "features.window=2")`: 3 videos a shard, batches of 4, no workers."""

    def make(output: Path, *overrides: str) -> Config:
        common = (
            f"model.pretrained={weights}",
            f"features.input={folder}",
            f"features.output={output}",
            "features.shard_videos=3",
            "features.batch_size=4",
            "features.max_broken=0.2",
            "data.workers=0",
        )
        return resolve_config(MOTION, (*common, *overrides))

    return make


@pytest.fixture(scope="session")
def extract(make_config: Callable[..., Config]) -> Callable[..., int]:
    """`extract(output, *overrides)` in this process; returns the exit code."""

    def run(output: Path, *overrides: str) -> int:
        config = make_config(output, *overrides)
        return run_extraction(config, read_input(config))

    return run


@pytest.fixture(scope="session")
def reference_store(extract: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of one process without workers, for tests that only read it."""
    output = tmp_path_factory.mktemp("reference") / "features"
    assert extract(output) == 0
    return output
