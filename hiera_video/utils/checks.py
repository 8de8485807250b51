"""Checks of user input."""

from __future__ import annotations

from hiera_video.errors import ConfigError


def require(ok: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `ok`. Write `require(x > 0, …)`, which refuses NaN too."""
    if not ok:
        raise ConfigError(message)
