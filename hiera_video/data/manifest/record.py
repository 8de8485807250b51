"""Records of a manifest: one per video, or per segment of a video. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from hiera_video.errors import ManifestError
from hiera_video.utils.text_files import count_of
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
    excluded_seconds: tuple[tuple[float, float], ...] = ()
    """Start and end of the segments that a record of background leaves out; it is about the rest of
    the video."""

    @property
    def source(self) -> str | ShardVideo:
        """The video, as `open_video` takes it."""
        return self.shard_video or self.path

    @property
    def part(self) -> str:
        """Text that identifies the part of the video that the record is about."""
        part = f"{self.start_seconds} {self.end_seconds} {self.num_frames}"
        return f"{part} {self.excluded_seconds}" if self.excluded_seconds else part

    @property
    def label_text(self) -> str:
        """Text that identifies the label."""
        return str(self.label)


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
        return 1 + self.highest_label

    @cached_property
    def labels_present(self) -> frozenset[int]:
        """All class indices that occur."""
        return frozenset(index for record in self.records for index in as_tuple(record.label))

    @property
    def highest_label(self) -> int:
        """Highest class index that occurs; -1 without labels."""
        return max(self.labels_present, default=-1)

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

        In a multi-label list, a video may show none of the classes (`()`, written `;`), but not
        every video.

        Raises:
            ManifestError: A record has none; the message names the first.
        """
        if self.multi_label and not self.labels_present:
            raise ManifestError(f"{self.source}: no video shows any class; write `path 3;7` lines")
        for record in self.records:
            if record.label is None:
                raise ManifestError(
                    f"{self.source}: {record.path} has no label; {self._label_remedy(record)}; "
                    "masked pre-training (train.task=pretrain) and hiera-video predict need none"
                )

    def _label_remedy(self, record: Record) -> str:
        if record.num_frames is None:
            return "write `path label` lines or put the videos into one folder a class"
        if self.multi_label:
            return (
                "write its labels; if videos without labels show none of the classes, set "
                "data.multi_label=true"
            )
        return (
            "write `frame_dir num_frames label` lines; for Something-Something, whose lists by "
            "PySlowFast have no labels, `hiera-video prepare ssv2 --json train.json --frames "
            "FOLDER` writes them"
        )

    def require_labels_below(
        self,
        count: int,
        owner: str,
        remedy: str = "correct the labels or choose another checkpoint",
    ) -> None:
        """Check that every label is one of `count` classes.

        Args:
            count: Number of classes.
            owner: What has the classes, for the message: `the model has`.
            remedy: What the message advises.

        Raises:
            ManifestError: A label is too high; where the labels start at 1, the message says so.
        """
        highest = self.highest_label
        if highest < count:
            return
        if highest == count and min(self.labels_present) == 1:
            remedy = "its labels start at 1, but classes count from 0: subtract 1 from each"
        raise ManifestError(
            f"{self.source}: has labels up to {highest}, {owner} {count_of(count, 'class')}; "
            f"{remedy}"
        )


def as_tuple(label: Label) -> tuple[int, ...]:
    """Return the class indices of a label: none, one or several."""
    return () if label is None else (label,) if isinstance(label, int) else label
