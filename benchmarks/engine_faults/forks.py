"""Training runs as forks of this process, so that torch is imported once for all of them.

The parent process must not compute gradients: autograd's threads would not survive the fork.
"""

from __future__ import annotations

import faulthandler
import multiprocessing.util
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from torch.utils import tensorboard  # noqa: F401  (imported once for all forks)

import hiera_video.workflows.train  # noqa: F401
from hiera_video.cli import train
from hiera_video.cli.run import run_tool

ROOT = Path(__file__).parents[2]
Hook = Callable[[], Callable[[], None] | None]
"""Runs in the child before the tool; the function that it returns runs after the tool."""


class Fork:
    """A run of `train_net.py` in a child process with its own process group.

    Args:
        arguments: Command-line arguments.
        log: File that receives its output.
        env: Further environment variables.
        hook: Called in the child.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        log: Path,
        env: dict[str, str] | None = None,
        hook: Hook | None = None,
    ):
        self.log = log
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(arguments, log, env or {}, hook)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the run is alive."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, seconds: float = 300) -> int:
        """Wait for the end and return the exit code; a hung run is killed, which gives -9."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL)
            time.sleep(0.005)
        return code

    def kill(self, number: int) -> None:
        """Send a signal to the process group, as a terminal and a scheduler do."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)  # its process group does not exist yet

    def limit_file_size(self, size: int) -> None:
        """Let no file grow beyond `size` from now on, which acts as a full disk."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))

    @property
    def output(self) -> str:
        """All that the run printed."""
        return self.log.read_text(errors="replace")


def _child(arguments: list[str], log: Path, env: dict[str, str], hook: Hook | None) -> None:
    code = 1
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        faulthandler.enable()
        os.environ.update(env)
        os.chdir(ROOT)
        sys.argv = ["tools/train_net.py", *arguments]
        after = hook() if hook else None
        try:
            run_tool(train.main)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        if after:
            after()
        # end remaining workers, as a normal exit does
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def torchrun(
    arguments: list[str], world: int, folder: Path, hook: Hook | None = None
) -> list[Fork]:
    """Start `world` processes with the environment that torchrun gives them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    env = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        Fork(
            arguments,
            log=folder / f"rank{rank}.log",
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            hook=hook,
        )
        for rank in range(world)
    ]
