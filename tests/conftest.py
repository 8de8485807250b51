"""Fixtures of several folders: tiny videos whose pixels spell the frame number, and a model with varied answers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import torch

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.video.encode import write_video

sys.path.insert(0, str(Path(__file__).parent / "video"))  # tests import corpus.py from here

Array = npt.NDArray[np.uint8]

WIDTH, HEIGHT, BITS = 64, 48, 8


class Videos:
    """Writes spelled videos into a folder and reads the numbers back from decoded frames."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> Array:
        """Upper half: the number's bits as stripes, lowest left. Lower half: the same, inverted. Moving noise above."""
        bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.int16)
        row = bits[np.arange(width) * BITS // width] * 160 + 40
        upper = np.repeat(row[None], height // 2, axis=0)
        lower = np.repeat(240 - row[None], height - height // 2, axis=0)
        noise = np.random.default_rng(7).integers(-30, 31, (height, width, 3))
        texture = np.roll(
            noise, (number, 2 * number), axis=(0, 1)
        )  # something for motion compensation to do
        picture = np.concatenate([upper, lower])[..., None] + texture
        return picture.clip(0, 255).astype(np.uint8)

    @classmethod
    def frames(cls, count: int, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Array]:
        return (cls.frame(number, width, height) for number in range(count))

    def write(
        self,
        name: str,
        count: int = 60,
        *,
        width: int = WIDTH,
        height: int = HEIGHT,
        **options: Any,
    ) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, self.frames(count, width, height), **options)
        return path

    @staticmethod
    def numbers(frames: Iterable[Array]) -> list[int]:
        """The number each frame spells; fails on a picture that is torn, mirrored upside down or turned."""
        found = []
        for frame in frames:
            height, width = frame.shape[:2]
            stripes = (
                frame.astype(float).mean(axis=2).reshape(height, BITS, width // BITS).mean(axis=2)
            )
            upper, lower = (
                stripes[: height // 2].mean(axis=0) > 120,
                stripes[height // 2 :].mean(axis=0) > 120,
            )
            assert (upper != lower).all(), "the two halves of the picture disagree"
            found.append(int(sum(1 << bit for bit in range(BITS) if upper[bit])))
        return found


@pytest.fixture
def videos(tmp_path: Path) -> Videos:
    return Videos(tmp_path)


@pytest.fixture(scope="session")
def shared_videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    """For videos that many tests only read."""
    return Videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every file of `corpus.ENTRIES`, by name."""
    from corpus import make_all

    def write(
        path: Path, count: int, *, width: int = WIDTH, height: int = HEIGHT, **options: Any
    ) -> Path:
        write_video(path, Videos.frames(count, width, height), **options)
        return path

    return make_all(tmp_path_factory.mktemp("corpus"), write)


@pytest.fixture(scope="session")
def seven_videos(shared_videos: Videos) -> Manifest:
    """In two class folders that have the same names, and one video with two stretches."""
    for i in range(6):
        shared_videos.write(f"shards/{'ab'[i % 2]}/v {i // 2}.x.mp4", 12 + i)
    shared_videos.write("shards/c.mkv", 20)
    listing = shared_videos.folder / "shards/list.csv"
    listing.write_text(
        "".join(f"{'ab'[i % 2]}/v {i // 2}.x.mp4 {i % 2}\n" for i in range(6))
        + "c.mkv 2 0 0.3\nc.mkv 1 0.3 0.6\n"
    )
    (shared_videos.folder / "shards/labels.txt").write_text("up\ndown\nround\n")
    return read_manifest(str(listing))


@pytest.fixture(scope="session")
def shards_index(seven_videos: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of `seven_videos` in tar shards, which lie beside it; for tests that only read them."""
    return write_shards(seven_videos, tmp_path_factory.mktemp("tars"), "train", shard_bytes=60_000)


@pytest.fixture
def copied_index(shards_index: Path, tmp_path: Path) -> Path:
    """The same in a folder of the test's own, to be damaged."""
    shutil.copytree(shards_index.parent, tmp_path / "copy")
    return tmp_path / "copy" / shards_index.name


@pytest.fixture
def served_shards(shards_index: Path) -> Iterator[str]:
    """The same at a URL: a file system of fsspec's that needs no package."""
    fs = fsspec.filesystem("memory")
    for path in shards_index.parent.iterdir():
        fs.pipe(f"/served/{path.name}", path.read_bytes())
    yield "memory://served"
    fs.rm("/served", recursive=True)


@pytest.fixture(scope="session")
def answering_model() -> Callable[[], Hiera]:
    """Makes a micro Hiera of three classes whose answers depend on what is seen: a fresh head is scaled to almost nothing."""

    def make() -> Hiera:
        torch.manual_seed(0)
        model = create_model("hiera_micro_16x32", num_classes=3)
        assert isinstance(model, Hiera)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.1)
        return model

    return make
