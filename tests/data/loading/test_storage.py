"""Issue I, 4.6: a passing fault of the storage does not become a lasting one."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiera_video.data.loading import storage
from hiera_video.data.loading.storage import OWN_PAUSES, PAUSES, StorageGuard, storage_responds
from hiera_video.data.manifest.record import Record
from hiera_video.errors import DecodeError, StorageError


class Clock:
    """Counts the seconds that a guard waits, and runs an action once they exceed a number."""

    def __init__(self, after: float = float("inf"), action: Callable[[], object] = bool) -> None:
        self.seconds, self.after, self.action = 0.0, after, action

    def __call__(self, seconds: float) -> None:
        self.seconds += seconds
        if self.seconds >= self.after:
            self.after = float("inf")
            self.action()


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    folder = tmp_path / "videos"
    folder.mkdir()
    for row in range(3):
        (folder / f"{row}.mp4").write_text(str(row))
    return [Record(path=str(folder / f"{row}.mp4"), label=0, row=row) for row in range(3)]


def reader(record: Record, opened: list[str] | None = None) -> Callable[[], str]:
    def read() -> str:
        if opened is not None:
            opened.append(record.path)
        try:
            return Path(record.path).read_text()
        except OSError as error:
            raise DecodeError(f"{record.path}: no such file", reason="missing") from error

    return read


@pytest.mark.parametrize("read_before", [0, 2])
def test_a_folder_that_returns_leaves_no_trace(
    records: list[Record], tmp_path: Path, read_before: int
) -> None:
    away = tmp_path / "away"
    clock = Clock(3, lambda: away.rename(tmp_path / "videos"))
    guard = StorageGuard(records, clock)
    for record in records[:read_before]:
        assert guard.read(record, reader(record)) == str(record.row)
    (tmp_path / "videos").rename(away)
    opened: list[str] = []
    assert guard.read(records[2], reader(records[2]), opened.append) == "2"
    assert clock.seconds == 3.5
    assert len(opened) == 4 + 7  # attempts, and half seconds of the pauses 0.5, 1 and 2


def test_an_empty_mount_point_is_a_fault_of_the_storage(
    records: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    guard = StorageGuard(records, clock)
    for record in records:
        Path(record.path).unlink()
    with pytest.raises(StorageError) as caught:
        guard.read(records[1], reader(records[1]))
    assert str(caught.value) == (
        f"{tmp_path}/videos/1.mp4: the storage fails ({tmp_path}/videos: is empty); check that the "
        "disk with the videos is mounted, and data.root, then run the same command again"
    )
    assert clock.seconds == sum(PAUSES) == 30.5
    assert "then run the same command again; trying for 30.5 s" in caplog.text


def test_a_folder_that_is_missing_from_the_start_is_an_error_at_once(tmp_path: Path) -> None:
    records = [Record(path=f"{tmp_path}/gone/{row}.mp4", label=0, row=row) for row in range(2)]
    with pytest.raises(StorageError) as caught:
        StorageGuard(records, Clock())
    assert str(caught.value) == (
        f"{tmp_path}/gone/0.mp4: the storage fails ({tmp_path}/gone: no such folder); check that "
        "the disk with the videos is mounted, and data.root, then run the same command again"
    )


def test_a_video_that_fails_alone_is_unreadable_after_a_second_attempt(
    records: list[Record],
) -> None:
    clock, opened = Clock(), list[str]()
    guard = StorageGuard(records, clock)
    guard.read(records[0], reader(records[0]))
    Path(records[1].path).unlink()
    with pytest.raises(DecodeError, match="no such file"):
        guard.read(records[1], reader(records[1], opened))
    assert clock.seconds == 0 and len(opened) == 2


def test_lack_of_file_descriptors_is_no_fault_of_a_video(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = storage._probe_number
    monkeypatch.setattr(storage, "_probe_number", lambda path: errno.EMFILE)

    def restore() -> None:
        monkeypatch.setattr(storage, "_probe_number", probe)

    def read() -> str:
        if storage._probe_number is not probe:
            raise DecodeError("x: not a video", reason="container") from OSError(errno.EMFILE, "")
        return "read"

    guard = StorageGuard(records, Clock(2, restore))
    guard._remember(records[0].path)
    assert guard.read(records[1], read) == "read"
    monkeypatch.setattr(storage, "_probe_number", lambda path: errno.EMFILE)
    guard = StorageGuard(records, Clock())
    guard._remember(records[0].path)
    with pytest.raises(StorageError, match=r"Too many open files\); raise the limit \(ulimit -n\)"):
        guard.read(records[1], read)


def test_a_bad_sector_is_retried_with_pauses_and_recorded(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, probe = records[1].path, storage._probe_number
    monkeypatch.setattr(
        storage, "_probe_number", lambda path: errno.EIO if path == bad else probe(path)
    )
    clock = Clock()
    guard = StorageGuard(records, clock)
    guard.read(records[0], reader(records[0]))
    error = DecodeError(f"{bad}: damaged", reason="corrupt")
    error.__cause__ = OSError(errno.EIO, os.strerror(errno.EIO))

    def read() -> str:
        raise error

    with pytest.raises(DecodeError, match="damaged"):
        guard.read(records[1], read)
    assert clock.seconds == sum(OWN_PAUSES)


def test_short_memory_stops_the_run(records: list[Record]) -> None:
    def read() -> str:
        raise MemoryError

    guard = StorageGuard(records, Clock())
    with pytest.raises(StorageError, match=r"memory\); free memory or raise the limit \(ulimit -v"):
        guard.read(records[0], read)


@pytest.mark.parametrize("reason", ["hung", "too_large"])
def test_what_storage_cannot_cause_is_raised_at_once(records: list[Record], reason: str) -> None:
    opened: list[str] = []

    def read() -> str:
        opened.append("")
        raise DecodeError("x", reason=reason)

    with pytest.raises(DecodeError):
        StorageGuard(records, Clock()).read(records[0], read)
    assert len(opened) == 1


def test_storage_that_does_not_respond_is_retried() -> None:
    record = Record(path="s3://bucket/a.tar!x.mp4", label=0, row=0)
    clock = Clock()

    def read() -> str:
        raise DecodeError("x: its storage does not respond", reason="unreachable")

    with pytest.raises(StorageError, match="does not respond"):
        StorageGuard([record], clock).read(record, read)
    assert clock.seconds == sum(PAUSES)


def test_storage_responds_with_files_folders_shards_and_errors(tmp_path: Path) -> None:
    file = tmp_path / "shard.tar"
    file.write_bytes(bytes(100_000))
    for path in (file, tmp_path, tmp_path / "gone.mp4"):
        assert storage_responds(str(path))
    assert storage_responds(f"{file}!a.mp4") and storage_responds("s3://bucket/shard.tar!a.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
def test_storage_that_blocks_a_read_does_not_respond(
    tmp_path: Path, block_reads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(bytes(1000))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "PROBE_SECONDS", 0.5)
        release = block_reads([file])
        assert not storage_responds(str(file))
    release()
    assert storage_responds(str(file))


def test_relative_paths_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut.mp4").write_bytes(b"no video")
    monkeypatch.chdir(tmp_path)
    paths = ("cut.mp4", "other.mp4", f"{tmp_path}/third.mp4")
    StorageGuard([Record(path=path, label=0, row=row) for row, path in enumerate(paths)], Clock())
