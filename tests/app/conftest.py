"""Shared fixtures of the page's tests: models that are not trained, and a film."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hiera_video as hv
from hiera_video.app.uploads import Uploads
from hiera_video.config.catalogue import list_configs
from hiera_video.config.load import load_config
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.models.hiera import Hiera
from hiera_video.workflows.load_run import LoadedRun

sys.path.insert(0, str(Path(__file__).parent))  # tests import page_client.py from here
from page_client import LIMITS, NAMES


@pytest.fixture(scope="session")
def saved_model(
    random_model: Callable[[], Hiera], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a classifier with three classes."""
    folder = tmp_path_factory.mktemp("app") / "classifier"
    hv.save_pretrained(random_model(), folder, class_names=NAMES)
    return folder


@pytest.fixture(scope="session")
def classifier(saved_model: Path) -> LoadedRun:
    return hv.load(saved_model)


@pytest.fixture(scope="session")
def autoencoder() -> LoadedRun:
    config = load_config(list_configs()["motion_hiera_micro_mae"])
    torch.manual_seed(0)
    model = hv.create_model(config.model.name, mae=config.mae).eval()
    augment = config.augment
    transform = EvalTransform(config.input_size[1], 1, augment.mean, augment.std)
    return LoadedRun(model=model, transform=transform, class_names=None, config=config)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder, LIMITS)
