"""The run folder: its lock and the record of the environment. Imports no torch."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.text_files import DAMAGED_JSON

logger = logging.getLogger(__name__)
PACKAGES = ("hiera-video", "torch", "torchvision", "av", "numpy", "omegaconf", "safetensors")


@contextmanager
def lock_run_folder(folder: Path) -> Iterator[None]:
    """Create `folder` and hold an exclusive lock on it while the block runs.

    On a file system without locks, log a warning and continue unlocked.

    Raises:
        ConfigError: `folder` is not writable, or another run holds its lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"out_dir={folder}: cannot be written ({error.strerror}); choose another out_dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"out_dir={folder}: another run is writing there; stop it or choose another out_dir"
            ) from error
        except OSError as error:  # Lustre mounted without flock, some NFS
            logger.warning(
                "out_dir=%s: the file system does not support locks (%s); a second run there would "
                "not be refused, so start only one at a time",
                folder,
                error.strerror,
            )
        yield


def write_environment(folder: Path) -> None:
    """Write `env.json`: machine, package versions, and the command line of every start."""
    path = folder / "env.json"
    commands = _read_commands(path)
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = {
        "commands": [*commands, " ".join(sys.argv)],
        "python": platform.python_version(),
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }
    write_atomic(path, json.dumps(facts, indent=1))


def _read_commands(path: Path) -> list[str]:
    """Return the commands of earlier starts; none, with a warning, if the file is damaged."""
    if not path.exists():
        return []
    try:
        return [str(command) for command in json.loads(path.read_text())["commands"]]
    except DAMAGED_JSON as error:
        logger.warning("%s: damaged (%s); written anew", path, error)
        return []
