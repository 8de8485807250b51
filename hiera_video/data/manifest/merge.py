"""Several training lists as one, with classes matched by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hiera_video.data.manifest.class_names import remap_labels
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ManifestError


def merge_manifests(manifests: Sequence[Manifest], repeats: Sequence[int]) -> Manifest:
    """Return one manifest with the videos of all.

    Args:
        manifests: The lists. Where they name classes, those of the first come first, and each new
            name of a later list after them. Without names, labels stay as they are.
        repeats: How often the videos of each list come.

    Raises:
        ManifestError: Some lists name their classes, and others do not.
    """
    unnamed = [manifest.source for manifest in manifests if manifest.class_names is None]
    if unnamed and len(unnamed) < len(manifests):
        named = next(manifest.source for manifest in manifests if manifest.class_names)
        raise ManifestError(
            f"{unnamed[0]}: has no class names, and {named} has; write a labels.txt beside each, "
            "so that their classes can be matched"
        )
    names = None
    if not unnamed:
        names = tuple(dict.fromkeys(name for one in manifests for name in one.class_names or ()))
        manifests = [remap_labels(manifest, names) for manifest in manifests]
    if any(manifest.multi_label for manifest in manifests):
        manifests = [manifest.to_multi_label() for manifest in manifests]
    records = [
        record
        for manifest, times in zip(manifests, repeats, strict=True)
        for _ in range(times)
        for record in manifest.records
    ]
    return Manifest(
        records=tuple(replace(record, row=row) for row, record in enumerate(records)),
        class_names=names,
        multi_label=manifests[0].multi_label,
        source=" + ".join(manifest.source for manifest in manifests),
    )
