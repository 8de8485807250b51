"""Shared fixtures of the page's tests: models that are not trained, and a film."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import hiera_video as hv
from hiera_video.app.uploads import AppLimits, Uploads
from hiera_video.config.catalogue import list_configs
from hiera_video.config.load import load_config
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.models.hiera import Hiera
from hiera_video.workflows.load_run import LoadedRun

NAMES = ("to the left", "<b>up</b>", "${document.title}")
"""Class names, two of which a page could take for its own text."""
LIMITS = AppLimits(max_mb=1.0, max_seconds=8.0)


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
