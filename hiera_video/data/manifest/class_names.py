"""Class names: the file beside a manifest, and labels that follow an order of names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from hiera_video.data.manifest.record import Label, Manifest
from hiera_video.errors import ManifestError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.text_files import count_of, is_text, read_json, read_text

CLASS_NAME_FILES = ("labels.txt", "labels.json")


@cache
def kinetics400_names() -> tuple[str, ...]:
    """Return the classes of Kinetics-400 in the order of the published weights."""
    return read_class_names(Path(__file__).with_name("kinetics400.txt"))


def find_class_names(listing: Path) -> tuple[tuple[str, ...] | None, Path | None]:
    """Read the class names beside a list, from `labels.txt` or `labels.json`.

    Returns:
        The names in index order and the file they are from; None and None if there is no file.
    """
    for file in map(listing.with_name, CLASS_NAME_FILES):
        if file.is_file() and file != listing:
            return read_class_names(file), file
    return None, None


def write_class_names(folder: Path, names: Sequence[str]) -> None:
    """Write class names into a folder: `labels.txt`, one per line, in the order of their indices.

    Names that a line cannot hold (blanks at their ends, line breaks, not UTF-8) are written as
    `labels.json`.
    """
    if all(map(_fits_a_line, names)):
        write_atomic(folder / "labels.txt", "".join(f"{name}\n" for name in names))
    else:
        write_atomic(folder / "labels.json", json.dumps(list(names), indent=1) + "\n")


def _fits_a_line(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name == name.strip() and "\n" not in name


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names from a text file (one per line) or a JSON file, in index order.

    Raises:
        ManifestError: The file is missing, or names are empty, repeated or not contiguous.
    """
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such file; write one class name per line, in the order of their indices"
        )
    return _names_from_json(path) if path.suffix == ".json" else _names_from_text(path)


def _names_from_text(path: Path) -> tuple[str, ...]:
    format_line: dict[str, int] = {}
    for number, line in enumerate(read_text(path).rstrip().split("\n"), 1):
        name = line.strip()
        if not name:
            raise ManifestError(
                f"{path}:{number}: is empty; line i names class i - 1, without gaps"
            )
        if (first := format_line.setdefault(name, number)) != number:
            raise ManifestError(
                f"{path}:{number}: class {name!r} is also on line {first}; names must differ"
            )
    return tuple(format_line)


def _names_from_json(path: Path) -> tuple[str, ...]:
    """Read `["a", "b"]` or Something-Something's `{"a": "0", "b": "1"}`."""
    content = read_json(path)
    if isinstance(content, list) and all(type(name) in (str, int) for name in content):
        content = {str(name): index for index, name in enumerate(content)}
    by_index: dict[int, str] = {}
    if isinstance(content, dict) and all(type(index) in (str, int) for index in content.values()):
        with contextlib.suppress(ValueError):
            by_index = {int(index): name for name, index in content.items()}
    if (
        not isinstance(content, dict)
        or not by_index
        or sorted(by_index) != list(range(len(content)))
        or not all(is_text(name) and name for name in content)
    ):
        raise ManifestError(
            f"{path}: must be a list of names, or map each name to its index, from 0 without gaps"
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def remap_labels(manifest: Manifest, names: Sequence[str]) -> Manifest:
    """Map a manifest's labels to another order of class names.

    Args:
        manifest: Must have class names, all of them in `names`.
        names: The class names in their new order.

    Returns:
        The manifest with class names `names` and labels that index them.
    """
    index_of = {name: index for index, name in enumerate(names)}
    new_index = [index_of[name] for name in manifest.class_names or ()]

    def remap(label: Label) -> Label:
        if isinstance(label, tuple):
            return tuple(sorted(new_index[index] for index in label))
        return None if label is None else new_index[label]

    records = tuple(replace(record, label=remap(record.label)) for record in manifest.records)
    return replace(manifest, records=records, class_names=tuple(names))


def share_class_names(manifest: Manifest, names: tuple[str, ...], names_source: str) -> Manifest:
    """Map a manifest's labels to class names that it will share with other lists.

    Args:
        manifest: Without class names of its own, its labels are kept as indices of `names`.
        names: The shared class names.
        names_source: File or list that `names` are from, for messages.

    Raises:
        ManifestError: The manifest has classes that `names` lacks.
    """
    remedy = "write this list into another folder, or give both the same classes"
    if manifest.class_names is None:
        if manifest.num_classes > len(names):
            raise ManifestError(
                f"{manifest.source}: has labels up to {manifest.num_classes - 1}, but "
                f"{names_source} names {count_of(len(names), 'class')}, and they would share one "
                f"labels file; {remedy}"
            )
        return replace(manifest, class_names=names)
    known = set(names)
    if unknown := [name for name in manifest.class_names if name not in known]:
        raise ManifestError(
            f"{manifest.source}: has the class {unknown[0]!r}, which {names_source} lacks, and "
            f"they would share one labels file; {remedy}"
        )
    return remap_labels(manifest, names)
