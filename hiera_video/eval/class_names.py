"""A checkpoint's classes and a manifest's, held against each other. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hiera_video.data.manifest.class_names import labels_by_name
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError

NAMED = 5
"""Names that a message lists before it counts the rest."""


def align_classes(
    manifest: Manifest, names: tuple[str, ...] | None, *, checkpoint: str, remap: bool
) -> Manifest:
    """`manifest` with labels that mean what the checkpoint's outputs mean, and with the checkpoint's names.

    The same names in the same order: as it is. Another order or a part of the names: an error, or labels mapped by name
    where `remap`. Names that the checkpoint does not know: an error. Where one side has no names, indices are trusted.
    """
    theirs = manifest.class_names
    if names is None or theirs == names:
        return manifest
    if theirs is None or theirs == names[: len(theirs)]:
        return replace(manifest, class_names=names)
    if unknown := [name for name in theirs if name not in set(names)]:
        known = [name for name in names if name not in set(theirs)]
        raise ManifestError(
            f"{manifest.source}: names classes that {checkpoint} was not trained on: {listed(unknown)}"
            + (f" (it knows, and the manifest does not: {listed(known)})" if known else "")
            + "; test on the classes of the training, or write its names into the manifest's labels file"
        )
    if not remap:
        place = next(index for index, name in enumerate(theirs) if names[index] != name)
        raise ManifestError(
            f"{manifest.source}: class {place} is {theirs[place]!r}, but {names[place]!r} to {checkpoint}; its "
            f"{len(theirs)} names are in another order than the checkpoint's {len(names)}: set test.remap_classes=true "
            "to map the labels by name"
        )
    return labels_by_name(manifest, names)


def align_label_count(manifest: Manifest, several: bool | None, *, of: str) -> Manifest:
    """`manifest` with as many labels a video, one or `several`, as `of` was trained on (None: nobody knows): a list whose
    videos happen to have one each may be of several. `ManifestError` where a video has several and the training had one."""
    if several is None or several == manifest.multi_label:
        return manifest
    if manifest.multi_label:
        raise ManifestError(
            f"{manifest.source}: has several labels a video, {of} one; give each video one label, or train on a list "
            "with several"
        )
    return manifest.with_several_labels()


def names_of(class_names: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...]:
    """A name for each of the model's outputs: its number where there are fewer names, or none."""
    names = class_names or ()
    return (*names, *(str(index) for index in range(len(names), num_classes)))


def listed(names: Sequence[str]) -> str:
    """`'a', 'b' and 7 more`."""
    shown = ", ".join(repr(name) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
