"""Everything is imported once; each trial is a fork that runs the real tool, so that a run costs its steps alone.

The parent never computes a gradient: autograd's threads would not survive the fork.
"""

from __future__ import annotations

import faulthandler
import importlib.util
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

from torch.utils import tensorboard  # noqa: F401  (imported here, once, for all forks)

import hiera_video.workflows.train
from hiera_video.cli.run import run_tool

ROOT = Path(__file__).parents[2]
Hook = Callable[[], Callable[[], None] | None]
"""Runs in the child before the tool; what it returns runs after it."""


def load_tool(name: str) -> Callable[[], int]:
    """`main` of `tools/<name>`."""
    spec = importlib.util.spec_from_file_location(
        f"tool_{name.removesuffix('.py')}", ROOT / "tools" / name
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[], int] = module.main
    return main


TRAIN = load_tool("train_net.py")
assert hiera_video.workflows.train


class Fork:
    """A run of `train_net.py` in a process (and process group) of its own."""

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
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self, seconds: float = 120) -> int:
        """Wait for the end; a run that takes longer is killed and counts as hung (code -9)."""
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL)
            time.sleep(0.005)
        return code

    def kill(self, number: int) -> None:
        """To the whole process group, as a terminal and a scheduler do."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)  # not yet the head of a group

    def limit_file_size(self, size: int) -> None:
        """From now on no file can grow beyond `size`: what a full disk looks like to one process."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, size))

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return self.log.read_text(errors="replace")


def _child(arguments: list[str], log: Path, env: dict[str, str], hook: Hook | None) -> None:
    code = 1
    try:
        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        faulthandler.enable()  # a crash in native code tells where it was
        os.environ.update(env)
        os.chdir(ROOT)
        sys.argv = ["tools/train_net.py", *arguments]
        after = hook() if hook else None
        try:
            run_tool(TRAIN)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        if after:
            after()
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]  # ends what workers are left, as a normal end does
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def torchrun(
    arguments: list[str], world: int, folder: Path, hook: Hook | None = None
) -> list[Fork]:
    """`world` processes with the environment that torchrun gives them."""
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
