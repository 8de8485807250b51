"""Videos by the names that a list of boxes gives them: a path, or AVA's name without a suffix."""

from __future__ import annotations

import os
from pathlib import Path

from hiera_video.data.manifest.record import VIDEO_SUFFIXES
from hiera_video.errors import ManifestError
from hiera_video.utils.safe_paths import SafeRoot
from hiera_video.utils.text_files import shorten


class VideoNames:
    """Finds the video of a name in a folder or in its subfolder `videos`.

    Each folder is listed once.

    Args:
        root: Folder of the videos.
        follow_links: Let symbolic links lead out of it.
        folders: Videos are folders of pictures.
    """

    def __init__(self, root: Path, *, follow_links: bool = False, folders: bool = False) -> None:
        self._root, self._safe = root, SafeRoot(root, follow_links=follow_links)
        self._folders = folders
        self._listed: dict[str, dict[str, str]] = {}
        self._found: dict[str, str] = {}

    def find(self, name: str, where: str) -> str:
        """Return the absolute path of a video.

        Args:
            name: A path relative to the root, with or without the suffix.
            where: Position in the list, for messages.

        Raises:
            ManifestError: There is no such video, or it lies outside the root.
        """
        if name not in self._found:
            self._found[name] = self._safe.resolve(self._locate(name, where), where)
        return self._found[name]

    def match(self, name: str) -> str | None:
        """Return the absolute path of a video as `find` does, None if there is none."""
        try:
            return self.find(name, "")
        except ManifestError:
            return None

    def _locate(self, name: str, where: str) -> str:
        parent, _, base = name.rpartition("/")
        for folder in (parent, f"videos/{parent}".rstrip("/")):
            entry = self._entries(folder).get(base)
            if base and entry is not None:
                return f"{folder}/{entry}" if folder else entry
        if os.path.isabs(name) and os.path.exists(name):  # noqa: PTH110, PTH117
            return name
        kind = "no folder of pictures" if self._folders else "no video"
        raise ManifestError(
            f"{where}: {kind} named {shorten(name)} in {self._root} or its folder videos; correct "
            "the name, set data.root to the folder of the videos, or remove its lines"
        )

    def _entries(self, folder: str) -> dict[str, str]:
        """Return the file or folder of each name in a folder: with and without the suffix."""
        if folder not in self._listed:
            found: dict[str, str] = {}
            path = self._root / folder
            inside = ".." not in folder.split("/") and not folder.startswith("/")
            if inside and path.is_dir():
                with os.scandir(path) as entries:
                    for entry in sorted(entries, key=lambda one: one.name):
                        stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122
                        if entry.is_dir() and self._folders:
                            found[entry.name] = entry.name
                        elif suffix.lower() in VIDEO_SUFFIXES and not self._folders:
                            found[entry.name] = entry.name
                            found.setdefault(stem, entry.name)
            self._listed[folder] = found
        return self._listed[folder]
