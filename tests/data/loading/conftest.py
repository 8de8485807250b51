"""Fixtures of the loader's tests."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest


@pytest.fixture(scope="session")
def manifest(shared_videos: Any) -> Manifest:
    """Nine videos of twelve frames in four classes."""
    for i in range(9):
        shared_videos.write(f"loader/{i}.mp4", 12)
    listing = shared_videos.folder / "loader/list.csv"
    listing.write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(9)))
    return read_manifest(str(listing))


@pytest.fixture
def block_reads() -> Iterator[Callable[[Sequence[Path]], Callable[[], None]]]:
    """Make the kernel block whoever opens files, as a dead disk does, until they are released.

    A lease does so for at most 45 seconds.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent when somebody opens the file
    leases: list[int] = []

    def release() -> None:
        while leases:
            fcntl.fcntl(leases[-1], fcntl.F_SETLEASE, fcntl.F_UNLCK)  # forked workers have it too
            os.close(leases.pop())

    def block(paths: Sequence[Path]) -> Callable[[], None]:
        for path in paths:
            leases.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            fcntl.fcntl(leases[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)
        return release

    yield block
    release()
    signal.signal(signal.SIGIO, before)
