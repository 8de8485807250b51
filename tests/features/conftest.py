"""A folder of tiny videos of which one is broken, a model that tells them apart, and extraction from one into the other."""

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
from hiera_video.workflows.extract import config_of, read_input, run_extraction

MOTION = Path(__file__).parents[2] / "configs" / "motion_hiera_micro.yaml"
FRAMES = (40, 16, 7, 90, 33, 50, 16, 64)
"""Of each video; a clip spans 16."""
BROKEN = 4


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0.mp4` … `7.mp4`, 12 frames a second; number 4 is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for number, count in enumerate(FRAMES):
        still = np.random.default_rng(number).integers(0, 255, (36, 48, 3), dtype=np.uint8)
        write_video(
            folder / f"{number}.mp4",
            (np.roll(still, 3 * t, axis=(0, 1)[t % 2]) for t in range(count)),
            fps=12,
        )
    (folder / f"{BROKEN}.mp4").write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Micro Hiera with weights large enough that clips get different features."""
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(
                    std=0.1, generator=torch.Generator().manual_seed(parameter.numel())
                )
    return save_pretrained(model, tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture(scope="session")
def configured(folder: Path, weights: Path) -> Callable[..., Config]:
    """`configured(output, "features.window=2")`: three videos a shard, batches of four, no workers."""

    def make(output: Path, *overrides: str) -> Config:
        common = (
            f"model.pretrained={weights}",
            f"features.input={folder}",
            f"features.output={output}",
        )
        small = (
            "features.shard_videos=3",
            "features.batch_size=4",
            "data.workers=0",
            "features.max_broken=0.2",
        )
        return config_of(MOTION, (*common, *small, *overrides))

    return make


@pytest.fixture(scope="session")
def extract(configured: Callable[..., Config]) -> Callable[..., int]:
    """`extract(output, *overrides)` in this process; returns the exit code."""

    def run(output: Path, *overrides: str) -> int:
        config = configured(output, *overrides)
        return run_extraction(config, read_input(config))

    return run


@pytest.fixture(scope="session")
def undisturbed(extract: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process without workers; tests only read it."""
    output = tmp_path_factory.mktemp("undisturbed") / "features"
    assert extract(output) == 0
    return output
