"""Shared fixtures: tiny videos whose pixels encode the frame number, shards, and a small model."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
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
sys.path.insert(0, str(Path(__file__).parent / "runtime"))  # and graph_emulator.py from here

from graph_emulator import EmulatedGraph, emulate_graphs

Array = npt.NDArray[np.uint8]

WIDTH, HEIGHT, BITS = 64, 48, 8


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip scripts and helpers beside the tests, unless they are named on the command line.

    `--doctest-modules` would import all of them.
    """
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    named = {Path(argument.partition("::")[0]).resolve() for argument in config.args}
    return True if is_helper and collection_path not in named else None


class Videos:
    """Writer of numbered videos into a folder; `numbers` reads the numbers back from frames."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> Array:
        """Draw a frame: the number's bits as stripes, the same inverted below, and moving noise.

        The lowest bit is on the left. The noise gives motion compensation something to predict.
        """
        bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.int16)
        row = bits[np.arange(width) * BITS // width] * 160 + 40
        upper = np.repeat(row[None], height // 2, axis=0)
        lower = np.repeat(240 - row[None], height - height // 2, axis=0)
        noise = np.random.default_rng(7).integers(-30, 31, (height, width, 3))
        texture = np.roll(noise, (number, 2 * number), axis=(0, 1))
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
        """Return each frame's number; fail if a frame is torn, mirrored vertically or rotated."""
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
            assert (upper != lower).all(), "the two halves of the frame disagree"
            found.append(int(sum(1 << bit for bit in range(BITS) if upper[bit])))
        return found


@pytest.fixture
def videos(tmp_path: Path) -> Videos:
    return Videos(tmp_path)


@pytest.fixture(scope="session")
def shared_videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    """Videos that tests share and do not modify."""
    return Videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every file of `corpus.ENTRIES` by name."""
    from corpus import make_all

    def write(
        path: Path, count: int, *, width: int = WIDTH, height: int = HEIGHT, **options: Any
    ) -> Path:
        write_video(path, Videos.frames(count, width, height), **options)
        return path

    return make_all(tmp_path_factory.mktemp("corpus"), write)


@pytest.fixture(scope="session")
def seven_videos(shared_videos: Videos) -> Manifest:
    """Six videos in two class folders with the same file names, and one with two segments."""
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
    """Index of `seven_videos` in tar shards beside it, which tests do not modify."""
    return write_shards(seven_videos, tmp_path_factory.mktemp("tars"), "train", shard_bytes=60_000)


@pytest.fixture
def copied_index(shards_index: Path, tmp_path: Path) -> Path:
    """A copy of `shards_index` and its shards, which the test may modify."""
    shutil.copytree(shards_index.parent, tmp_path / "copy")
    return tmp_path / "copy" / shards_index.name


@pytest.fixture
def served_shards(shards_index: Path) -> Iterator[str]:
    """URL of a copy of `shards_index` and its shards on fsspec's in-memory file system."""
    fs = fsspec.filesystem("memory")
    for path in shards_index.parent.iterdir():
        fs.pipe(f"/served/{path.name}", path.read_bytes())
    yield "memory://served"
    fs.rm("/served", recursive=True)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the commands of the documentation work; tests copy it.

    It has videos/train/<class>/*.mp4, videos/val, the same as data/motion/*.csv, clip.mp4, runs/x
    (trained and tested) and its copies runs/a and runs/b.
    """
    from hiera_video.cli.main import run_command

    folder = tmp_path_factory.mktemp("trained")
    for split, count in (("train", 8), ("val", 3)):
        for label, (name, step) in enumerate((("left", -1), ("right", 1))):
            for number in range(count):
                frames = np.full((24, 40, 48, 3), 70 + number, np.uint8)
                for time in range(24):
                    place = 12 + step * (time - 12) // 2 + 12
                    frames[time, 10 + number : 22 + number, place : place + 12] = 240
                path = folder / "videos" / split / name / f"{split}_{name}_{number}.mp4"
                copy = folder / "data/motion" / split / f"{label}_{number}.mp4"
                for target in (path, copy):
                    target.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, frames, fps=12)
                shutil.copy(path, copy)
                with (folder / f"data/motion/{split}.csv").open("a") as listing:
                    listing.write(f"{split}/{copy.name} {label}\n")
    (folder / "data/motion/labels.txt").write_text("left\nright\n")
    shutil.copy(path, folder / "clip.mp4")
    keys = ("data.train=videos/train", "data.val=videos/val", "out_dir=runs/x", "data.workers=0")
    train = ("train", "--cfg", "motion_hiera_micro", *keys, "train.epochs=2", "train.batch_size=4")
    with contextlib.chdir(folder):
        assert run_command(train) == 0
        assert run_command(["test", "--run", "runs/x", "test.clips=1"]) == 0
        for copy in ("a", "b"):
            shutil.copytree("runs/x", f"runs/{copy}")
    return folder


@pytest.fixture(scope="session")
def random_model() -> Callable[[], Hiera]:
    """Return a maker of a micro Hiera with three classes whose outputs depend on the input.

    With the default initialisation the head's weights are close to zero.
    """

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


@pytest.fixture
def full_disk() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """`with full_disk(1000):` lets files grow to 1,000 bytes; larger writes fail in the middle."""

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


@pytest.fixture
def emulated_graphs(monkeypatch: pytest.MonkeyPatch) -> list[EmulatedGraph]:
    """Let the CPU capture CUDA graphs, and return those that were captured."""
    return emulate_graphs(monkeypatch)
