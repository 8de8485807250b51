"""Signals only set a flag; the previous handlers are restored."""

from __future__ import annotations

import os
import signal

import pytest

from hiera_video.runtime.signals import StopSignal


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_a_signal_sets_the_flag_and_the_exit_code(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
        os.kill(os.getpid(), signal.SIGTERM)  # as torchrun sends after a Ctrl-C
        assert stop.received == number
    assert stop.exit_code == code
    assert signal.getsignal(number) is before
