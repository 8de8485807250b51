"""Errors of readers: fixed reasons that survive pickling."""

from __future__ import annotations

import pickle

import pytest

from hiera_video.errors import DecodeError
from hiera_video.video.reader import REASONS, Closeable, unreadable


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(unreadable("a.mp4", "corrupt", "is damaged")))
    assert (type(error), str(error), error.reason) == (DecodeError, "a.mp4: is damaged", "corrupt")


def test_reasons_are_fixed() -> None:
    assert len(set(REASONS)) == len(REASONS)
    with pytest.raises(AssertionError):
        unreadable("a.mp4", "typo", "x")


def test_a_failing_constructor_closes_the_object() -> None:
    closed: list[bool] = []

    class Reader(Closeable):
        def __init__(self) -> None:
            with self.close_on_error():
                raise RuntimeError("no header")

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(RuntimeError, match="no header"):
        Reader()
    assert closed == [True]
