"""What a manifest holds: one record a video, or a stretch of one. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hiera_video.errors import ManifestError
from hiera_video.video.options import ShardVideo

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".flv", ".wmv", ".3gp", ".gif", ".ogv"),
)

Label = int | tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One video, or one stretch of it."""

    path: str
    """Absolute path, inside the manifest's root; `shard!name` where the video lies in a tar shard."""
    label: Label
    """Class index; a tuple of them where the manifest is multi-label; None where there is none."""
    row: int
    """Place in the manifest, from 0: what predictions are keyed by."""
    start_seconds: float | None = None
    """The record begins here; None: with the video."""
    end_seconds: float | None = None
    """The record ends before this; None: with the video."""
    num_frames: int | None = None
    """Frames that count, where a list of frame folders says it; None: all."""
    stored: ShardVideo | None = None
    """Where in a shard the video lies; None: it is a file of its own."""

    @property
    def source(self) -> str | ShardVideo:
        """What `open_video` takes."""
        return self.stored or self.path


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All records of one list, folder or annotation file, in its order."""

    records: tuple[Record, ...]
    class_names: tuple[str, ...] | None
    """Names in index order, where the source has them."""
    multi_label: bool
    source: str
    """What was read, for messages."""

    @property
    def num_classes(self) -> int:
        """As many as there are names, else one more than the highest label, and so 0 where nothing has a label."""
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max(
            (max(as_tuple(record.label), default=-1) for record in self.records), default=-1
        )

    def with_several_labels(self) -> Manifest:
        """The same with every label a tuple, and so `multi_label`."""
        tuples = (
            None if record.label is None else as_tuple(record.label) for record in self.records
        )
        records = tuple(replace(record, label=label) for record, label in zip(self.records, tuples))
        return replace(self, records=records, multi_label=True)

    def require_labels(self) -> None:
        """`ManifestError` naming the first record without a label: training to classify needs all of them."""
        for record in self.records:
            if record.label is None:
                raise ManifestError(
                    f"{self.source}: {record.path} has no label; write `path label` lines or put the videos into one "
                    "folder a class; masked pre-training (train.task=pretrain) and tools/predict.py need none"
                )


def as_tuple(label: Label) -> tuple[int, ...]:
    """The label's class indices: none, one or several."""
    return () if label is None else (label,) if isinstance(label, int) else label
