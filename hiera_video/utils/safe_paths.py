"""Path confinement: a downloaded manifest must not read files outside its root folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hiera_video.errors import ManifestError


class SafeRoot:
    """Folder that contains every path of a manifest, checked against `..` and symbolic links.

    Links are found by listing each folder once rather than by a call per file: a list of 240,000
    videos on a network disk would otherwise take minutes.

    Args:
        folder: Folder that relative paths start from.
        targets: Another folder that links may lead into; None: `folder` alone.
        follow_links: Let links lead anywhere.
    """

    def __init__(
        self, folder: str | Path, *, targets: str | None = None, follow_links: bool = False
    ) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100 (keeps links in the path, as the user wrote it)
        self._targets = [os.path.realpath(item) for item in (folder, targets) if item is not None]
        self._follow_links = follow_links
        self._folders: dict[str, _Folder] = {}

    def resolve(self, path: str, where: str) -> str:
        """Return the absolute path of a manifest's entry.

        Args:
            path: A path relative to the root, or an absolute path inside it.
            where: Position in the manifest (`file:line`), for the error message.

        Raises:
            ManifestError: The path is a URL, lies outside the root, leaves it through a link, or is
                not UTF-8 text and no such file exists.
        """
        parent, slash, name = path.rpartition("/")
        folder = self._folders.get(parent + slash)
        if folder is None:
            folder = self._folders[parent + slash] = self._scan(parent + slash)
        if name in ("", ".", "..") or folder.problem or name in folder.links:
            return self._resolve_with_care(path, where)
        full = folder.path + name
        return full if path.isascii() else _require_text(full, path, where)

    def _scan(self, parent: str) -> _Folder:
        full = os.path.normpath(os.path.join(self.folder, parent))  # noqa: PTH118 (a hot path)
        if "://" in parent or not _is_inside(full, self.folder):
            return _Folder(path="", problem=True, links=frozenset())
        links = set[str]()
        if not self._follow_links:
            # a folder that is missing or not readable is reported when its videos are opened
            with contextlib.suppress(OSError), os.scandir(full) as entries:
                links = {entry.name for entry in entries if entry.is_symlink()}
        return _Folder(
            path=full.rstrip("/") + "/", problem=self._leaves(full), links=frozenset(links)
        )

    def _resolve_with_care(self, path: str, where: str) -> str:
        if "://" in path:
            raise ManifestError(
                f"{where}: {path!r} is a URL, and videos are read from disk; download it first"
            )
        full = os.path.normpath(os.path.join(self.folder, path))  # noqa: PTH118 (a hot path)
        if not _is_inside(full, self.folder) or full == self.folder:
            raise ManifestError(
                f"{where}: {path!r} lies outside {self.folder}; set data.root to a folder that "
                "holds all videos, and write paths that are absolute or start from there"
            )
        if self._leaves(full):
            raise ManifestError(
                f"{where}: {path!r} is or lies behind a link that leaves {self.folder}; "
                "set data.follow_links=true (check-data, prepare: --follow-links) to read what is "
                "behind it"
            )
        return _require_text(full, path, where)

    def _leaves(self, path: str) -> bool:
        """Return True if `path`, with links followed, lies in none of the permitted folders."""
        if self._follow_links:
            return False
        real = os.path.realpath(path)
        return not any(_is_inside(real, target) for target in self._targets)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Folder:
    path: str
    """Absolute path with a slash at its end."""
    problem: bool
    """True if no file in it may be read."""
    links: frozenset[str]
    """Names of its entries that are symbolic links."""


def walk_folders(
    folder: str | Path,
    enter_link: Callable[[str], bool],
    is_leaf: Callable[[Sequence[str]], bool] = lambda names: False,
) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and all folders below it, each once, with the sorted names of their files.

    Hidden folders below it are left out.

    Args:
        folder: Where to start.
        enter_link: Called with each link to a folder; returns whether to enter it.
        is_leaf: Called with the names of a folder's files; returns whether to skip what is below.
    """
    known = set[str]()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in known:  # a loop of links
            folders.clear()
            continue
        known.add(real)
        inside = [] if is_leaf(names) else [name for name in folders if not is_hidden(name)]
        paths = {name: os.path.join(parent, name) for name in inside}  # noqa: PTH118 (a hot path)
        folders[:] = sorted(
            name
            for name, path in paths.items()
            if not os.path.islink(path) or enter_link(path)  # noqa: PTH114 (a hot path)
        )
        yield parent, sorted(names)


def is_hidden(name: str) -> bool:
    """Return True for a hidden file or folder, and for the folder of macOS's metadata."""
    return name.startswith(".") or name == "__MACOSX"


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _require_text(full: str, path: str, where: str) -> str:
    """Return `full` unless it is neither UTF-8 nor the name of a file."""
    try:
        path.encode()
    except UnicodeEncodeError as error:  # Linux permits such names; Python escapes their bytes
        if not os.path.lexists(full):
            raise ManifestError(
                f"{where}: {path!r} is not UTF-8 text, and there is no file of this name; "
                "save the list as UTF-8"
            ) from error
    return full
