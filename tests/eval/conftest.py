"""Twenty-one tiny videos that differ in rate, length and size, and a model whose answers depend on what it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.video.encode import write_video

KINDS = [  # fps, frames, height, width
    *(
        (12, 1, 40, 48),
        (12, 7, 48, 40),
        (12, 30, 36, 64),
        (15, 16, 33, 33),
        (15, 40, 64, 36),
        (15, 90, 50, 34),
    ),
    *(
        (24, 24, 40, 70),
        (24, 51, 70, 40),
        (24, 52, 34, 34),
        (25, 53, 48, 48),
        (25, 54, 36, 50),
        (25, 100, 60, 44),
    ),
    *(
        (30, 63, 40, 48),
        (30, 64, 48, 64),
        (30, 65, 64, 48),
        (30, 120, 38, 90),
        (50, 106, 40, 40),
        (50, 150, 42, 36),
    ),
    *((60, 50, 40, 60), (60, 128, 36, 36), (60, 150, 32, 40)),
]


@pytest.fixture(scope="session")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A manifest of three classes over videos of every one of `KINDS`; every frame differs from the one before."""
    folder, records = tmp_path_factory.mktemp("varied"), []
    for row, (fps, count, height, width) in enumerate(KINDS):
        path = folder / f"{row}.mp4"
        still = np.random.default_rng(row).integers(0, 255, (height, width, 3), dtype=np.uint8)
        frames = (np.roll(still, 3 * time, axis=(0, 1)[time % 2]) for time in range(count))
        write_video(path, frames, fps=fps, pixel_format="yuv444p" if height % 2 else "yuv420p")
        records.append(Record(path=str(path), label=row % 3, row=row))
    return Manifest(
        records=tuple(records), class_names=("a", "b", "c"), multi_label=False, source=str(folder)
    )


@pytest.fixture(scope="session")
def sensitive() -> Hiera:
    """Micro Hiera with weights large enough that views get different answers."""
    torch.manual_seed(0)
    model = create_model("hiera_micro_16x32", num_classes=3).eval()
    assert isinstance(model, Hiera)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(
                    std=0.1, generator=torch.Generator().manual_seed(parameter.numel())
                )
    return model


@pytest.fixture(scope="session")
def checkpoint(sensitive: Hiera, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sensitive` as a folder with its class names."""
    from hiera_video.models.weights.save import save_pretrained

    return save_pretrained(
        sensitive, tmp_path_factory.mktemp("model") / "model", class_names=["a", "b", "c"]
    )
