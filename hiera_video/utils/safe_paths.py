"""Path confinement: a downloaded manifest must not read files outside its root folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hiera_video.errors import ManifestError


class SafeRoot:
    """Folder that contains every path of a manifest, checked against `..` and symbolic links.

    Links are found by listing each folder once rather than by a call per file: a list of 240,000
    videos on a network disk would otherwise take minutes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100 (keeps links in the path, as the user wrote it)
        self.real = os.path.realpath(folder)
        self._folders: dict[str, _Folder] = {}

    def resolve(self, path: str, where: str) -> str:
        """Return the absolute path of a manifest's entry.

        Args:
            path: A path relative to the root, or an absolute path inside it.
            where: Position in the manifest (`file:line`), for the error message.

        Raises:
            ManifestError: The path is a URL, lies outside the root or leaves it through a link.
        """
        if "://" in path:
            raise ManifestError(
                f"{where}: {path!r} is a URL, and videos are read from disk; download it first"
            )
        full = os.path.normpath(os.path.join(self.folder, path))  # noqa: PTH118 (a hot path)
        if not _is_inside(full, self.folder) or full == self.folder:
            raise ManifestError(
                f"{where}: {path!r} lies outside {self.folder}; set data.root to a folder that "
                "holds all videos"
            )
        parent, name = os.path.split(full)
        folder = self._folders.get(parent)
        if folder is None:
            folder = self._folders[parent] = _scan_folder(parent, self.real)
        if not folder.is_inside or (
            name in folder.links and not _is_inside(os.path.realpath(full), self.real)
        ):
            raise ManifestError(
                f"{where}: {path!r} is or lies behind a link that leaves {self.folder}; "
                "set data.root to a folder that holds the link's target too"
            )
        return full


@dataclass(frozen=True, kw_only=True)
class _Folder:
    is_inside: bool
    """True if the folder, with links followed, lies in the root."""
    links: frozenset[str]
    """Names of its entries that are symbolic links."""


def _scan_folder(folder: str, root: str) -> _Folder:
    try:
        links = frozenset(entry.name for entry in os.scandir(folder) if entry.is_symlink())
    except OSError:  # missing or not readable, which opening its videos will report
        links = frozenset()
    return _Folder(is_inside=_is_inside(os.path.realpath(folder), root), links=links)


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
