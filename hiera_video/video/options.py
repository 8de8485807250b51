"""What readers are told beside a path: how frames in a folder are named, where in a shard a video lies, where an index of
packets is. Standard library alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from hiera_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FrameFolder:
    """How the frames of videos that were taken apart into pictures are named, and how fast they play."""

    template: str | None = None
    """Name of a frame: `img_%05d.jpg` or `img_{:05d}.jpg`; unset: pictures whose names differ by their last number."""
    first: int | None = None
    """Number of the first frame; unset: the lowest there is."""
    fps: float = 30.0
    """Frames a second that were taken."""

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ConfigError(f"data.frame_fps={self.fps}: must be above 0")
        if self.first is not None and self.first < 0:
            raise ConfigError(
                f"data.frame_first={self.first}: must be 0 or more; leave it unset to have it found"
            )
        if self.template is not None:
            self.pattern()

    def pattern(self) -> re.Pattern[str]:
        """Matches a frame's file name; group `number` is its number."""
        if self.template is None:
            return re.compile(
                r"(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.(?:jpe?g|png|bmp|webp))", re.IGNORECASE
            )
        parts = re.split(r"(%0?\d*d|\{:0?\d*d?\})", self.template)
        if len(parts) != 3 or "/" in self.template:
            raise ConfigError(
                f"data.frame_template={self.template!r}: must be a file name with one place for the number, such as "
                "img_%05d.jpg"
            )
        width = re.sub(r"\D", "", parts[1])
        digits = rf"\d{{{int(width)},}}" if width else r"\d+"
        return re.compile(
            rf"(?P<prefix>{re.escape(parts[0])})(?P<number>{digits})(?P<suffix>{re.escape(parts[2])})"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardVideo:
    """A video that lies in a tar shard."""

    shard: str
    """Path or URL of the tar file."""
    member: str
    """The video's name in it."""
    offset: int
    """Bytes of the shard before the video's first."""
    size: int
    """Bytes of the video."""

    @property
    def path(self) -> str:
        """`shards/train-000000.tar!0000012_name.mp4`: what messages, predictions and the quarantine call it."""
        return f"{self.shard}!{self.member}"


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedPyAV:
    """The pyav decoder, with an index of packets."""

    index: str
    """The file that `tools/check_data.py --index` has written."""


Backend = str | FrameFolder | IndexedPyAV
"""What `open_video` takes to read with."""
