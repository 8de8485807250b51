"""Settings of re-encoding; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from hiera_video.utils.checks import require


@dataclass(frozen=True, kw_only=True)
class ReencodeConfig:
    """Size, key frame interval and quality of re-encoded copies."""

    short_side: int = 256
    """Pixels of the shorter side; smaller videos keep their size."""
    gop: int = 32
    """Largest number of frames between key frames."""
    crf: int = 23
    """Quality; lower is better and larger."""

    def __post_init__(self) -> None:
        side, gop, crf = self.short_side, self.gop, self.crf
        require(side >= 16, f"--short-side {side}: must be 16 pixels or more")
        require(gop >= 1, f"--gop {gop}: must be 1 frame or more")
        require(0 <= crf <= 51, f"--crf {crf}: must be in 0 (lossless) to 51 (worst)")
