"""Python programs of a GPU check, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpu_timing import Setup

ROOT = Path(__file__).parents[1]
TAIL = 3000
"""Characters kept of the end of a program's output."""


class ProgramError(Exception):
    """A program failed; the message ends with its output."""


class StoppedError(ProgramError):
    """A program ran out of time."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def run_program(arguments: Sequence[str], setup: Setup, timeout: float) -> float:
    """Run a Python program in the project's root and return its seconds.

    Raises:
        ProgramError: It failed, or took longer than `timeout` seconds.
    """
    began = time.perf_counter()
    done = launch(arguments, setup, timeout)
    if done.returncode:
        command = " ".join(arguments)
        raise ProgramError(f"{command}: exit code {done.returncode}\n{done.stdout[-TAIL:]}")
    return round(time.perf_counter() - began, 2)


def launch(
    arguments: Sequence[str], setup: Setup, timeout: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in the project's root and return its output, errors included.

    Raises:
        StoppedError: It took longer than `timeout` seconds; its processes were killed.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **(environ or {})}
    if not setup.on_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)  # its children too, which hold GPU memory
            output, _ = process.communicate()
            raise StoppedError(
                f"{' '.join(arguments)}: stopped after {timeout:.0f} s\n{output[-TAIL:]}", output
            ) from error
        except BaseException:  # an interruption reaches no other process group
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output)
