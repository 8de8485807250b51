"""Arguments of `open_video` besides a path: frame naming, shard members, packet indexes.

Imports only the standard library.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hiera_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FrameFolder:
    """Naming and frame rate of videos stored as folders of pictures."""

    template: str | None = None
    """File name of a frame: `img_%05d.jpg` or `img_{:05d}.jpg`; unset: all pictures, numbered by
    the last number in their names."""
    first: int | None = None
    """Number of the first frame; unset: the lowest number in the folder."""
    fps: float = 30.0
    """Rate at which the frames were extracted, per second."""

    follow_links: bool = False
    """Read pictures that are symbolic links out of the folder."""

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ConfigError(f"data.frame_fps={self.fps}: must be above 0")
        if self.first is not None and self.first < 0:
            raise ConfigError(
                f"data.frame_first={self.first}: must be 0 or more; leave it unset to detect it"
            )
        if self.template is not None:
            self.pattern()

    def is_frame(self, name: str) -> bool:
        """Return True for the file name of a frame; hidden files are none."""
        return self.pattern().fullmatch(name) is not None and not name.startswith(".")

    def pattern(self) -> re.Pattern[str]:
        """Return a pattern for the file names, with groups `prefix`, `number` and `suffix`."""
        if self.template is None:
            return re.compile(
                r"(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.(?:jpe?g|png|bmp|webp))", re.IGNORECASE
            )
        parts = re.split(r"(%0?\d*d|\{:0?\d*d?\})", self.template)
        if len(parts) != 3 or "/" in self.template:
            raise ConfigError(
                f"data.frame_template={self.template!r}: must be a file name with one place for "
                "the number, such as img_%05d.jpg"
            )
        prefix, number, suffix = parts
        width = re.sub(r"\D", "", number)
        digits = rf"\d{{{int(width)},}}" if width else r"\d+"
        return re.compile(
            rf"(?P<prefix>{re.escape(prefix)})(?P<number>{digits})(?P<suffix>{re.escape(suffix)})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardVideo:
    """A video stored in a tar shard."""

    shard: str
    """Path or URL of the tar file."""
    member: str
    """Name of the video in it."""
    offset: int
    """Position of the video's first byte in the shard."""
    size: int
    """Size of the video in bytes."""

    @property
    def path(self) -> str:
        """Name in messages, predictions and the quarantine: `train-000000.tar!0000012_name.mp4`."""
        return f"{self.shard}!{self.member}"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedPyAV:
    """The `pyav` backend with a packet index."""

    index: str
    """File written by `hiera-video check-data --index`."""


Backend = str | FrameFolder | IndexedPyAV
"""Type of `open_video`'s `backend` argument."""
