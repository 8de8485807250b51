"""Order of the classes: one for all splits, compared with a reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from hiera_video.data.manifest.class_names import (
    find_class_names,
    kinetics400_names,
    read_class_names,
    share_class_names,
)
from hiera_video.data.manifest.record import Manifest, Record, as_tuple
from hiera_video.utils.text_files import count_of


def unify_classes(
    manifests: Mapping[str, Manifest], listing: Path
) -> tuple[dict[str, Manifest], tuple[str, ...] | None]:
    """Map the labels of all splits to the class names of one labels file.

    The names are those beside `listing` if there are any, else those of the first split that has
    names, else those of the class folders. An index of shards has names of its own and does not
    change.

    Args:
        manifests: Splits, by name.
        listing: File in the folder where the splits' lists will be written.

    Returns:
        The splits with mapped labels, and the names; None where names are unknown.

    Raises:
        ManifestError: A split has a class that the names lack.
    """
    lists = {split: manifest for split, manifest in manifests.items() if not manifest.in_shards}
    names, file = find_class_names(listing) if lists else (None, None)
    names_source = str(file)
    if names is None:
        for manifest in manifests.values():
            if manifest.class_names is not None:
                names, names_source = manifest.class_names, manifest.source
                break
        else:
            names = names_from_folders([r for m in manifests.values() for r in m.records])
    if names is not None:
        for split, manifest in lists.items():
            lists[split] = share_class_names(manifest, names, names_source)
    return {**manifests, **lists}, names


def names_from_folders(records: Sequence[Record]) -> tuple[str, ...] | None:
    """Return the names of the class folders by index, or None unless each label has its own."""
    folders: dict[int, set[str]] = defaultdict(set)
    for record in records:
        for label in as_tuple(record.label):
            folders[label].add(Path(record.path).parent.name)
    names = [next(iter(folders[label])) for label in sorted(folders) if len(folders[label]) == 1]
    if (
        len(names) < len(folders)
        or len(set(names)) < len(names)
        or sorted(folders) != list(range(len(folders)))
    ):
        return None
    return tuple(names) or None


def check_class_order(
    names: tuple[str, ...] | None, reference: str | None
) -> tuple[list[str] | None, str]:
    """Compare class names with a reference order.

    Args:
        names: The classes in index order; None if unknown.
        reference: File of class names, or `k400`; None: Kinetics-400's where there are 400 classes.

    Returns:
        The differences, or None if there is no reference; and what the reference is, or why there
        is none.
    """
    if names is None:
        return None, "the class names are unknown: neither lists nor folders give them"
    if reference not in (None, "k400"):
        known = read_class_names(Path(str(reference)))
        return compare_class_order(names, known), str(reference)
    if reference is None and len(names) != 400:
        return None, "pass --classes with a file of class names in the right order"
    return compare_class_order(names, kinetics400_names()), "Kinetics-400's order"


def compare_class_order(names: Sequence[str], reference: Sequence[str]) -> list[str]:
    """Return one line per class that differs from the reference; spelling variants are equal.

    >>> compare_class_order(["a", "c"], ["A", "b"])
    ["class 1 is 'c', but 'b' in the reference (which has no 'c')"]
    """
    ours, theirs = [_normalise(name) for name in names], [_normalise(name) for name in reference]
    if len(ours) != len(theirs):
        return [f"{count_of(len(ours), 'class')}, but {len(theirs)} in the reference"]
    index_of = {name: index for index, name in enumerate(theirs)}
    return [
        f"class {index} is '{names[index]}', but '{reference[index]}' in the reference (which has "
        + (
            f"'{names[index]}' at {index_of[name]})"
            if name in index_of
            else f"no '{names[index]}')"
        )
        for index, name in enumerate(ours)
        if name != theirs[index]
    ]


def _normalise(name: str) -> str:
    # releases write both `petting animal (not cat)` and `petting_animal_(not_cat)`
    return " ".join(name.replace("_", " ").lower().split())
