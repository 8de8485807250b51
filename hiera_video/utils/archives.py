"""Zip archives whose members are stored as they are, as torch and numpy write them."""

from __future__ import annotations

import zipfile
from pathlib import Path


def check_stored(path: Path) -> None:
    """Check that the members of a zip archive take no more bytes than the archive itself.

    A compressed archive of a few megabytes can fill the memory. Other files are left to their
    readers.

    Raises:
        ValueError: They take more.
        zipfile.BadZipFile: The archive's directory is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if total > size:
        raise ValueError(
            f"its members take {total} bytes and the file {size}: it is compressed, which torch "
            "and numpy never do"
        )
