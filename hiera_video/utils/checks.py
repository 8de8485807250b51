"""Checks of user input."""

from __future__ import annotations

from hiera_video.errors import ConfigError


def require(ok: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `ok`.

    Write `require(x > 0, …)` rather than `require(not x <= 0, …)`: the former rejects NaN.
    """
    if not ok:
        raise ConfigError(message)
