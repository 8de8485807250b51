"""A trained run and videos to predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hiera_video.config.load import load_config, save_config
from hiera_video.models.hiera import Hiera
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.video.encode import write_video

CONFIG = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"
NAMES = ["to the right", "to the left", "up"]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[[], Hiera]) -> Path:
    """The folder of a finished run with three named classes."""
    folder = tmp_path_factory.mktemp("run")
    save_config(load_config(CONFIG, [f"out_dir={folder}"]), folder / "config.yaml")
    meta = {"model": {"num_classes": 3}, "class_names": NAMES}
    store = CheckpointStore(folder / "checkpoints", keep=1)
    store.save(1, random_model().state_dict(), {}, meta, best=True)
    return folder


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.mp4` (2 s), `deep/b.mp4` (1.5 s), both at 16 fps, and a text file."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "deep").mkdir()
    generator = np.random.default_rng(0)
    for name, count in (("a.mp4", 32), ("deep/b.mp4", 24)):
        frames = generator.integers(0, 255, (count, 40, 48, 3), dtype=np.uint8)
        write_video(folder / name, frames, fps=16)
    (folder / "notes.txt").write_text("no video")
    return folder
