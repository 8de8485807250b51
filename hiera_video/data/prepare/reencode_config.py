"""How copies that are quick to read are made (see `reencode`). Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass

from hiera_video.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the copies are made."""

    short_side: int = 256
    """Pixels of the shorter side; videos that are smaller keep their size."""
    gop: int = 32
    """Frames from key frame to key frame at most."""
    crf: int = 23
    """Quality: lower is better, and larger."""

    def __post_init__(self) -> None:
        if not self.short_side >= 16:
            raise ConfigError(f"--short-side {self.short_side}: must be 16 pixels or more")
        if not self.gop >= 1:
            raise ConfigError(f"--gop {self.gop}: must be 1 frame or more")
        if not 0 <= self.crf <= 51:
            raise ConfigError(f"--crf {self.crf}: must be in 0 (exact) to 51 (worst)")
