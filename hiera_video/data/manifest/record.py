"""Records of a manifest: one per video, or per segment of a video. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hiera_video.errors import ManifestError
from hiera_video.video.options import ShardVideo

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".flv", ".wmv", ".3gp", ".gif", ".ogv"),
)

Label = int | tuple[int, ...] | None
"""A class index, several of them in a multi-label manifest, or none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One video, or one segment of a video."""

    path: str
    """Absolute path, inside the manifest's root; `shard!name` for a video in a tar shard."""
    label: Label
    """Class index; a tuple of indices in a multi-label manifest; None without a label."""
    row: int
    """Position in the manifest, from 0; identifies the record in predictions and features."""
    start_seconds: float | None = None
    """Start of the segment; None: the video's start."""
    end_seconds: float | None = None
    """End of the segment, exclusive; None: the video's end."""
    num_frames: int | None = None
    """Number of frames to use, as stated in a list of frame folders; None: all."""
    shard_video: ShardVideo | None = None
    """Position of the video in a tar shard; None: the video is a file of its own."""

    @property
    def source(self) -> str | ShardVideo:
        """The video, as `open_video` takes it."""
        return self.shard_video or self.path


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The videos and labels of one list, folder or annotation file, in its order."""

    records: tuple[Record, ...]
    class_names: tuple[str, ...] | None
    """Names in index order; None if the source has none."""
    multi_label: bool
    """True if labels are tuples."""
    source: str
    """File, folder or URL that was read, for messages."""

    @property
    def num_classes(self) -> int:
        """Number of class names, or else the highest label plus 1; 0 without labels."""
        if self.class_names is not None:
            return len(self.class_names)
        labels = (index for record in self.records for index in as_tuple(record.label))
        return 1 + max(labels, default=-1)

    @property
    def in_shards(self) -> bool:
        """True if every video lies in a tar shard."""
        return all(record.shard_video is not None for record in self.records)

    def to_multi_label(self) -> Manifest:
        """Return a copy whose labels are all tuples."""
        records = tuple(
            record if record.label is None else replace(record, label=as_tuple(record.label))
            for record in self.records
        )
        return replace(self, records=records, multi_label=True)

    def require_labels(self) -> None:
        """Check that every record has a label, as training a classifier needs.

        Raises:
            ManifestError: A record has none; the message names the first.
        """
        for record in self.records:
            if record.label is None:
                raise ManifestError(
                    f"{self.source}: {record.path} has no label; write `path label` lines or put "
                    "the videos into one folder a class; masked pre-training "
                    "(train.task=pretrain) and tools/predict.py need none"
                )


def as_tuple(label: Label) -> tuple[int, ...]:
    """Return the class indices of a label: none, one or several."""
    return () if label is None else (label,) if isinstance(label, int) else label
