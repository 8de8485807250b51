"""Names of the classes, from a file beside a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hiera_video.data.manifest.record import Label, Manifest
from hiera_video.errors import ManifestError
from hiera_video.utils.text_files import read_json, read_text

CLASS_NAME_FILES = ("labels.txt", "labels.json")


def class_names_beside(path: Path) -> tuple[tuple[str, ...] | None, Path | None]:
    for name in CLASS_NAME_FILES:
        file = path.parent / name
        if file.is_file() and file != path:
            return read_class_names(file), file
    return None, None


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a text or JSON file, in index order."""
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such file; write a class name a line, in the order of their indices"
        )
    return names_from_json(path) if path.suffix == ".json" else _names_from_text(path)


def _names_from_text(path: Path) -> tuple[str, ...]:
    names = [line.strip() for line in read_text(path).rstrip().split("\n")]
    for number, name in enumerate(names, 1):
        if not name:
            raise ManifestError(
                f"{path}:{number}: is empty; line i names class i - 1, without gaps"
            )
        if (first := names.index(name) + 1) != number:
            raise ManifestError(
                f"{path}:{number}: class {name!r} stands on line {first} already; names must differ"
            )
    return tuple(names)


def names_from_json(path: Path) -> tuple[str, ...]:
    """`["a", "b"]` or Something-Something's `{"a": "0", "b": "1"}`."""
    content = read_json(path)
    if isinstance(content, list):
        content = {name: index for index, name in enumerate(map(str, content))}
    try:
        by_index = (
            {int(index): str(name) for name, index in content.items()}
            if isinstance(content, dict)
            else {}
        )
    except (TypeError, ValueError):
        by_index = {}
    if (
        not isinstance(content, dict)
        or not by_index
        or sorted(by_index) != list(range(len(content)))
    ):
        raise ManifestError(
            f"{path}: must be a list of names, or map each to its own index, from 0 without gaps"
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def labels_by_name(manifest: Manifest, names: Sequence[str]) -> Manifest:
    """`manifest`, whose names must all be among `names`, with the labels that its classes have there."""
    index_of = {name: index for index, name in enumerate(names)}
    moved = [index_of[name] for name in manifest.class_names or ()]

    def mapped(label: Label) -> Label:
        if label is None:
            return None
        return (
            tuple(sorted(moved[item] for item in label))
            if isinstance(label, tuple)
            else moved[label]
        )

    records = tuple(replace(record, label=mapped(record.label)) for record in manifest.records)
    return replace(manifest, records=records, class_names=tuple(names))


def in_order_of(manifest: Manifest, names: tuple[str, ...], names_from: str) -> Manifest:
    """`manifest` as a list that shares `names` with others: labels mapped by name, or as they are where it names none.
    `ManifestError` where it has classes that `names_from`, where the names stand, does not know."""
    remedy = "write this list into a folder of its own, or give both the same classes"
    if manifest.class_names is None:
        if manifest.num_classes > len(names):
            raise ManifestError(
                f"{manifest.source}: has labels up to {manifest.num_classes - 1}, but {names_from} names {len(names)} "
                f"classes, and they would share one labels file; {remedy}"
            )
        return replace(manifest, class_names=names)
    known = set(names)
    if unknown := [name for name in manifest.class_names if name not in known]:
        raise ManifestError(
            f"{manifest.source}: names the class {unknown[0]!r}, which {names_from} does not, and they would share one "
            f"labels file; {remedy}"
        )
    return labels_by_name(manifest, names)
