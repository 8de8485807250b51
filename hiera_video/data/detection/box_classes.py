"""Classes of a list of boxes: AVA's label maps (`.pbtxt`), or names in the order of their index."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hiera_video.data.manifest.class_names import CLASS_NAME_FILES, read_class_names
from hiera_video.errors import ManifestError
from hiera_video.utils.text_files import read_text, shorten

LABEL_MAP_SUFFIX = ".pbtxt"
FIELD = re.compile(r'(\w+)\s*:\s*("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[^\s"\'{}]+)|[{}]')
"""A field of a label map, `name: "stand"`, or a brace."""
NAME_KEYS, ID_KEYS = ("name", "display_name"), ("id", "label_id")
COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class BoxClasses:
    """The classes of boxes, and the ids by which lists name them."""

    names: tuple[str, ...]
    """Names in the order of the model's outputs."""
    ids: tuple[int, ...]
    """Id of each class in lists: AVA's count from 1 and may have gaps; those of plain names are
    their indices, from 0."""
    source: str
    """File of the classes, for messages."""

    def index(self, text: str, where: str) -> int:
        """Return the index of the class that a list's column names, by its id or by its name.

        Args:
            text: The column.
            where: Position in the list, for messages.

        Raises:
            ManifestError: There is no such class.
        """
        if text in self.names:
            return self.names.index(text)
        if text.isdecimal() and len(text) < 10 and int(text) in self.ids:
            return self.ids.index(int(text))
        raise ManifestError(
            f"{where}: action {shorten(text)} is no class of {self.source}, which has "
            f"{len(self.ids)}, ids {min(self.ids)} to {max(self.ids)}; correct it, or set "
            "detect.label_map to the list's own classes"
        )


def find_box_classes(listing: Path, label_map: str | None) -> BoxClasses:
    """Read the classes of a list of boxes.

    Args:
        listing: The list.
        label_map: File of the classes; None: `labels.txt`, `labels.json` or the only `*.pbtxt`
            beside the list.

    Raises:
        ManifestError: There is no such file, or it has no classes.
    """
    if label_map is not None:
        if not Path(label_map).is_file():
            raise ManifestError(
                f"detect.label_map={label_map}: no such file; write one class name per line, or "
                "download AVA's label map (.pbtxt)"
            )
        return read_box_classes(Path(label_map))
    files = [file for file in map(listing.with_name, CLASS_NAME_FILES) if file.is_file()]
    files = files or sorted(listing.parent.glob(f"*{LABEL_MAP_SUFFIX}"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ManifestError(
            f"{listing}: needs the names of its classes: labels.txt, labels.json or one .pbtxt "
            f"beside it (found: {found}); write one name per line, or set detect.label_map"
        )
    return read_box_classes(files[0])


def read_box_classes(path: Path) -> BoxClasses:
    """Read a label map (`.pbtxt`), or class names in index order (`.txt`, `.json`).

    Raises:
        ManifestError: An entry lacks its name or its id, or two have the same.
    """
    if path.suffix != LABEL_MAP_SUFFIX:
        names = read_class_names(path)
        return BoxClasses(names=names, ids=tuple(range(len(names))), source=str(path))
    found: dict[int, str] = {}
    for line, name, number in _entries(path):
        if not name or not number.isdecimal():
            raise ManifestError(
                f'{path}:{line}: has no name or no id; write item {{ name: "stand" id: 12 }}'
            )
        if int(number) in found or name in found.values():
            raise ManifestError(
                f"{path}:{line}: class {shorten(name)}, id {number}: the name or the id comes "
                "twice; names and ids must differ"
            )
        found[int(number)] = name
    if not found:
        raise ManifestError(
            f'{path}: has no classes; write item {{ name: "stand" id: 12 }} for each, or download '
            "AVA's label map again"
        )
    ids = sorted(found)
    return BoxClasses(
        names=tuple(found[number] for number in ids), ids=tuple(ids), source=str(path)
    )


def _entries(path: Path) -> list[tuple[int, str, str]]:
    """Return the line, the name and the id of each entry of a label map, empty where missing."""
    text = COMMENT.sub("", read_text(path))
    entries: list[tuple[int, str, str]] = []
    fields: dict[str, str] = {}
    start = 1
    for match in FIELD.finditer(text):
        if match[0] == "{":
            fields, start = {}, text.count("\n", 0, match.start()) + 1
        elif match[0] == "}":
            name = next((fields[key] for key in NAME_KEYS if key in fields), "")
            number = next((fields[key] for key in ID_KEYS if key in fields), "")
            entries.append((start, name, number))
        else:
            value = match[2][1:-1] if match[2][0] in "\"'" else match[2]
            fields[match[1]] = re.sub(r"\\(.)", r"\1", value)
    return entries
