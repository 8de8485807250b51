"""Archives that expand are refused by the sizes in their directory (issue I, 4.2 and 4.8)."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hiera_video.utils.archives import check_stored


def bomb(path: Path) -> Path:
    """Write an archive of 10 kB with a member of 10 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    return path


def test_compressed_archives_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb.pth")
    with pytest.raises(
        ValueError,
        match=rf"^its members take 10000000 bytes and the file {path.stat().st_size}: it is "
        "compressed, which torch and numpy never do$",
    ):
        check_stored(path)


def test_what_torch_and_numpy_write_and_other_files_pass(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000), "b": list(range(1000))}, tmp_path / "a.pth")
    np.savez(tmp_path / "a.npz", a=np.zeros(1000), b=np.arange(10))
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").write_bytes(b"")
    for name in ("a.pth", "a.npz", "text", "empty"):
        check_stored(tmp_path / name)


def test_an_archive_with_a_damaged_directory(tmp_path: Path) -> None:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(10)}, content)
    data = bytearray(content.getvalue())
    data[data.rindex(b"PK\x01\x02") + 1] = 0
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(zipfile.BadZipFile):
        check_stored(tmp_path / "a.pth")
