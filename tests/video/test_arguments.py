"""Frame numbers of every kind, and threads that share a reader."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import BACKENDS, open_video
from hiera_video.video.arguments import describe, frame_numbers, video_path
from hiera_video.video.encode import write_video
from hiera_video.video.reader import VideoReader

READERS = [name for name in BACKENDS if name != "torchcodec"]
COUNT = 24


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VideoReader]:
    """Opener of a video of 24 frames with a backend."""
    folder = tmp_path_factory.mktemp("film")
    pictures = [np.full((32, 40, 3), 9 * number, np.uint8) for number in range(COUNT)]
    write_video(folder / "a.mp4", pictures, gop=8)
    with open_video(folder / "a.mp4") as video:
        from PIL import Image

        (folder / "a").mkdir()
        for number, frame in enumerate(video.frames(range(COUNT))):
            Image.fromarray(frame).save(folder / f"a/img_{number:05d}.png")

    def opened(backend: str) -> VideoReader:
        return open_video(folder / ("a" if backend == "frames" else "a.mp4"), backend)

    return opened


@pytest.mark.parametrize("backend", READERS)
def test_threads_that_share_a_reader_get_the_frames_of_one_thread(
    film: Callable[[str], VideoReader], backend: str
) -> None:
    """Without turns, FFmpeg ends the process."""
    numbers = [*range(COUNT), *reversed(range(COUNT))] * 2
    with film(backend) as video:
        expected = video.frames(range(COUNT))
    with film(backend) as video, ThreadPoolExecutor(4) as pool:
        infos = pool.map(lambda _: video.info, range(4))
        found = list(pool.map(lambda number: video.frames([number])[0], numbers))
        assert len(set(infos)) == 1
    assert all(np.array_equal(frame, expected[i]) for frame, i in zip(found, numbers, strict=True))


@pytest.mark.parametrize("backend", READERS)
def test_a_reader_is_closed_between_the_frames_of_other_threads(
    film: Callable[[str], VideoReader], backend: str
) -> None:
    video = film(backend)
    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(video.frames, [number]) for number in range(COUNT)]
        pool.submit(video.close).result()
    for read in reads:
        error = read.exception()
        assert error is None or "is closed; read it inside the `with` block" in str(error)


@pytest.mark.parametrize("backend", READERS)
def test_a_closed_reader(film: Callable[[str], VideoReader], backend: str) -> None:
    with film(backend) as video:
        pass
    words = r"a(\.mp4)?: is closed; read it inside the `with` block, or open it again$"
    with pytest.raises(ConfigError, match=words):
        video.frames([0])
    with pytest.raises(ConfigError, match=words):
        video.info  # noqa: B018
    video.close()
    assert len(video.times) == COUNT


def test_a_reader_of_a_folder_survives_pickling(film: Callable[[str], VideoReader]) -> None:
    copy = pickle.loads(pickle.dumps(film("frames")))
    with copy:
        assert copy.frames([3]).shape == (1, 32, 40, 3)


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize(
    "indices",
    [
        torch.tensor([22, 23, 23]),
        np.array([22, 23, 23], np.uint8),
        [torch.tensor(22), np.int64(23), 23],
        (22, 23, 23),
    ],
    ids=["tensor", "array", "scalars", "tuple"],
)
def test_frame_numbers_of_every_kind(
    film: Callable[[str], VideoReader], backend: str, indices: Any
) -> None:
    with film(backend) as video:
        expected = video.frames([22, 23, 23])
        assert np.array_equal(video.frames(indices), expected)
        assert np.array_equal(video.frames(iter(indices)), expected)
        assert np.array_equal(video.frames(index for index in indices), expected)


@pytest.mark.parametrize(
    ("indices", "named"),
    [
        (None, "None"),
        (3, "3"),
        (3.0, "3.0"),
        (True, "True"),
        (slice(0, 8), r"slice\(0, 8, None\)"),
        ("012", "'012'"),
        (b"012", "bytes"),
        (np.int64(3), r"an int64 \[\] of int64"),
        (torch.tensor(3), r"a tensor \[\] of int64"),
        (np.zeros((2, 3), int), r"an array \[2, 3\] of int64"),
        (torch.zeros(2, 3), r"a tensor \[2, 3\] of float32"),
    ],
    ids=str,
)
def test_indices_that_are_no_list_of_numbers(indices: Any, named: str) -> None:
    words = rf"^a.mp4: frames\(\) takes a list of frame numbers, such as \[0, 4, 8\], not {named}$"
    with pytest.raises(ConfigError, match=words):
        frame_numbers("a.mp4", indices)


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (1.0, "1.0"),
        (True, "True"),
        ("1", "'1'"),
        (None, "None"),
        (torch.tensor(True), r"a tensor \[\] of bool"),
        (torch.tensor(1.0), r"a tensor \[\] of float32"),
        ([1, 2], "a list"),
    ],
    ids=str,
)
def test_numbers_that_are_no_integers(number: Any, named: str) -> None:
    words = rf"^a.mp4: frame number {named} is no integer; give frames\(\) a list such as \[0, 4, 8"
    with pytest.raises(ConfigError, match=words):
        frame_numbers("a.mp4", [0, number])


def test_arrays_of_other_types() -> None:
    for array in (np.array([1.0]), torch.tensor([1.0])):
        with pytest.raises(ConfigError, match=r"frame number 1.0 is no integer"):
            frame_numbers("a.mp4", array)
    with pytest.raises(ConfigError, match="frame number True is no integer"):
        frame_numbers("a.mp4", np.array([True, False]))


def test_descriptions_are_one_short_line() -> None:
    for value in ("x\ny" * 200, np.zeros((99, 99)), slice(np.zeros((9, 9)), 1), b"\0" * 999):
        assert "\n" not in describe(value) and len(describe(value)) <= 81


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("video", "named"),
    [
        (None, "None"),
        (3, "3"),
        ("", "''"),
        (b"a.mp4", "bytes"),
        (io.BytesIO(b"content"), "a BytesIO"),
        (np.zeros((4, 8, 8, 3), np.uint8), r"an array \[4, 8, 8, 3\] of uint8"),
        (torch.zeros(3), r"a tensor \[3\] of float32"),
        (["a.mp4"], "a list"),
        (Record(path="a.mp4", label=None, row=0), "a Record"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_videos_that_are_no_paths(video: Any, named: str, backend: str) -> None:
    words = (
        rf"^video is {named}; give the path of a file or folder of frames, a ShardVideo, or the "
        "`source` of a record$"
    )
    with pytest.raises(ConfigError, match=words):
        open_video(video, backend)


def test_paths_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (entry,) = os.scandir(tmp_path)
    assert video_path(entry, "") == video_path(Path(entry), "") == str(tmp_path / "a.mp4")
    (entry,) = os.scandir(os.fsencode(tmp_path))
    with pytest.raises(ConfigError, match="video is a DirEntry; give the path"):
        video_path(entry, "a record")


@pytest.mark.parametrize("backend", READERS)
def test_urls_are_not_read(backend: str) -> None:
    words = r"^https://a.b/c.mp4: is a URL, and videos are read from disk; download it first$"
    with pytest.raises(DecodeError, match=words) as caught:
        open_video("https://a.b/c.mp4", backend)
    assert caught.value.reason == "missing"
