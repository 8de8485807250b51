"""Paths that may not leave their root, neither by `..` nor by a link: a list from elsewhere reads no other file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hiera_video.errors import ManifestError


class SafeRoot:
    """A folder that every path of a manifest has to lie in.

    Links are looked for folder by folder (one listing each) and not file by file: a list of 240,000 videos on a network
    disk would otherwise take minutes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100 (keeps links in the path, as the user wrote it)
        self.real = os.path.realpath(folder)
        self._folders: dict[str, _Folder] = {}

    def resolve(self, path: str, where: str) -> str:
        """Absolute path of `path`, which is relative to the root or lies in it; `where` opens the error's message."""
        if "://" in path:
            raise ManifestError(
                f"{where}: {path!r} is a URL, and videos are read from disk; download it first"
            )
        full = os.path.normpath(os.path.join(self.folder, path))  # noqa: PTH118 (a hot path)
        if not _inside(full, self.folder) or full == self.folder:
            raise ManifestError(
                f"{where}: {path!r} lies outside {self.folder}; set data.root to a folder that holds all videos"
            )
        parent, name = os.path.split(full)
        folder = self._folders.get(parent)
        if folder is None:
            folder = self._folders[parent] = _look_at(parent, self.real)
        if not folder.inside or (
            name in folder.links and not _inside(os.path.realpath(full), self.real)
        ):
            raise ManifestError(
                f"{where}: {path!r} is or lies behind a link that leaves {self.folder}; "
                "set data.root to a folder that holds the link's target too"
            )
        return full


@dataclass(frozen=True, kw_only=True)
class _Folder:
    inside: bool
    links: frozenset[str]


def _look_at(folder: str, root: str) -> _Folder:
    """Whether a folder, links followed, lies in `root`, and which of its entries are links."""
    try:
        links = frozenset(entry.name for entry in os.scandir(folder) if entry.is_symlink())
    except (
        OSError
    ):  # it is missing or closed to us, and so are its videos: told when they are opened
        links = frozenset()
    return _Folder(inside=_inside(os.path.realpath(folder), root), links=links)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
