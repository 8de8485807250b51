"""Remote reads: ranges, retries of transient errors, and the kinds of errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pytest

import hiera_video as hv
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError
from hiera_video.utils import remote_files
from hiera_video.utils.remote_files import fetch, is_url


class FlakyFileSystem:
    """Raises the given errors, one a call, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def cat_file(self, path: str, start: int | None, end: int | None) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return b"0123456789"[start:end]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause, none of which is waited for."""
    found: list[float] = []
    monkeypatch.setattr(remote_files.time, "sleep", found.append)
    return found


def use(monkeypatch: pytest.MonkeyPatch, system: FlakyFileSystem) -> None:
    monkeypatch.setattr(remote_files, "_file_system", lambda url: (system, url))


def test_urls() -> None:
    assert is_url("s3://bucket/a.tar") and not is_url("/data/a.tar")
    assert not is_url(Path("/data/a.tar")) and not is_url(Path("s3://bucket/a.tar"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(None, "None"), (b"a.csv", "of type bytes"), (3, "of type int"), ([], "of type list")],
    ids=str,
)
def test_names_that_are_neither_text_nor_paths(name: Any, kind: str) -> None:
    words = f"^a file or folder is {kind}; give its path, or a URL, as text$"
    with pytest.raises(ConfigError, match=words):
        is_url(name)
    with pytest.raises(ConfigError, match=words):
        hv.read_manifest(name)


def test_lists_and_folders_are_named_by_path_objects(seven_videos: Manifest) -> None:
    listing: Any = Path(seven_videos.source)
    assert hv.read_manifest(listing).records == seven_videos.records
    assert len(hv.read_manifest(listing.parent / "a", root=listing.parent).records) == 3


def test_ranges() -> None:
    fsspec.filesystem("memory").pipe("/ranges.bin", b"0123456789")
    assert fetch("memory://ranges.bin") == b"0123456789"
    assert fetch("memory://ranges.bin", 2, 5) == b"234"
    assert fetch("memory://ranges.bin", 8, 20) == b"89"
    fsspec.filesystem("memory").rm("/ranges.bin")


def test_transient_errors_are_retried_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    use(monkeypatch, FlakyFileSystem(TimeoutError("slow"), RuntimeError("busy")))
    assert fetch("s3://b/x", 1, 3) == b"12"
    assert pauses == [1.0, 2.0]
    use(monkeypatch, FlakyFileSystem(*[RuntimeError("busy")] * 3))
    with pytest.raises(OSError, match="RuntimeError: busy"):
        fetch("s3://b/x")


@pytest.mark.parametrize("error", [FileNotFoundError("x"), PermissionError("x")])
def test_permanent_errors_are_raised_at_once(
    error: OSError, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    use(monkeypatch, FlakyFileSystem(error))
    with pytest.raises(type(error)):
        fetch("s3://b/x")
    assert pauses == []


def test_a_protocol_without_a_file_system() -> None:
    words = r"nosuch://b/x: no file system for such URLs is installed .*; install it, or download"
    with pytest.raises(ConfigError, match=words):
        fetch("nosuch://b/x")
