"""Alignment of a manifest's classes with a checkpoint's. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hiera_video.data.manifest.class_names import remap_labels
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError

MAX_NAMES = 5
"""Names that a message quotes before it counts the rest."""


def align_classes(
    manifest: Manifest, names: tuple[str, ...] | None, *, checkpoint: str, remap: bool
) -> Manifest:
    """Return `manifest` with labels that index the checkpoint's classes, and with its class names.

    Without names on one side, the labels are trusted as they are.

    Args:
        manifest: Videos to test.
        names: Class names of the checkpoint, in the order of its outputs.
        checkpoint: What error messages call the checkpoint.
        remap: Map labels by name where the two orders differ, instead of raising.

    Raises:
        ManifestError: A class name is unknown to the checkpoint; or the order differs and `remap`
            is off; or a label is higher than the classes.
    """
    theirs = manifest.class_names
    if names is None or theirs == names:
        return manifest
    manifest.require_labels_below(len(names if theirs is None else theirs), f"{checkpoint} has")
    if theirs is None or theirs == names[: len(theirs)]:
        return replace(manifest, class_names=names)
    known, named = set(names), set(theirs)
    if unknown := [name for name in theirs if name not in known]:
        absent = [name for name in names if name not in named]
        hint = f" (classes of the checkpoint only: {quote_names(absent)})" if absent else ""
        raise ManifestError(
            f"{manifest.source}: names classes that {checkpoint} was not trained on: "
            f"{quote_names(unknown)}{hint}; test on the classes of the training set, or write its "
            "names into the manifest's labels file"
        )
    if not remap:
        index = next(index for index, name in enumerate(theirs) if names[index] != name)
        raise ManifestError(
            f"{manifest.source}: class {index} is {theirs[index]!r}, but {names[index]!r} in "
            f"{checkpoint}; its {len(theirs)} names are in another order than the checkpoint's "
            f"{len(names)}: set test.remap_classes=true to map the labels by name"
        )
    return remap_labels(manifest, names)


def align_label_count(manifest: Manifest, multi_label: bool | None, *, of: str) -> Manifest:
    """Return `manifest` as multi-label if the model is, even where every video has one label.

    Args:
        manifest: Videos to test.
        multi_label: Whether the training set had several labels a video; None if unknown.
        of: What error messages call the training set or checkpoint.

    Raises:
        ManifestError: A video has several labels, and the training set had one for each.
    """
    if multi_label is None or multi_label == manifest.multi_label:
        return manifest
    if manifest.multi_label:
        raise ManifestError(
            f"{manifest.source}: has several labels a video, {of} one; give each video one label, "
            "or train on a list with several"
        )
    return manifest.to_multi_label()


def output_names(class_names: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...]:
    """Return a name for each of the model's outputs; those without a name get their index."""
    names = class_names or ()
    return (*names, *(str(index) for index in range(len(names), num_classes)))


def quote_names(names: Sequence[str]) -> str:
    """Return the first names in quotes and the number of the others.

    >>> quote_names(["a", "b", "c", "d", "e", "f", "g"])
    "'a', 'b', 'c', 'd', 'e' and 2 more"
    """
    quoted = ", ".join(repr(name) for name in names[:MAX_NAMES])
    return quoted if len(names) <= MAX_NAMES else f"{quoted} and {len(names) - MAX_NAMES} more"
