"""Run a command: user errors become one line on stderr and an exit code. Imports no torch."""

from __future__ import annotations

import errno
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from hiera_video.errors import ConfigError, HieraVideoError, ManifestError
from hiera_video.utils.extras import explain_missing
from hiera_video.utils.text_files import printable

USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_AWAY = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run `main` as the process's command and exit with its code."""
    # Set before torch is imported: spinning OpenMP threads slow a step down up to eightfold when
    # loader workers or other processes share the cores (measured on 2 cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with suppress(AttributeError):  # not a stream of text: names that are not UTF-8 are printed
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(exit_code(main))


class _PrintableFormatter(logging.Formatter):
    """Formatter that escapes control characters: names in messages must not control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def exit_code(main: Callable[[], int]) -> int:
    """Return the exit code of `main`; print an error that the user's input caused as one line."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # at exit, a reader that has gone would cost a message
    except HieraVideoError as error:
        message = str(error)
        if (
            isinstance(error, ConfigError | ManifestError)
            and os.environ.get("LOCAL_RANK", "0") != "0"
        ):
            return USER_ERROR  # of the input: the node's first process says the same
    except BrokenPipeError:
        return _end_quietly()
    except OSError as error:
        remedy = _remedy(error)
        if remedy is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror}; {remedy}, then run the same command again"
    except ImportError as error:  # of an extra, or a library of torch cannot be loaded
        missing, remedy = explain_missing(error), _remedy_of_import(str(error))
        if missing is None and remedy is None:
            raise
        message = missing or f"{error}; {remedy}, then run the same command again"
    except MemoryError:
        message = f"out of memory; {_memory_remedy()}, then run the same command again"
    except RuntimeError as error:
        if not _is_full_device(error):
            raise
        message = (
            "out of memory on the GPU; lower test.batch_size (features.batch_size in extract), end "
            "other programs on it, or hide it (CUDA_VISIBLE_DEVICES=), then run the same command "
            "again"
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"error: {printable(message)}", file=sys.stderr)
    return USER_ERROR


def _is_full_device(error: RuntimeError) -> bool:
    """Return True for torch's error of a GPU without free memory; torch need not be there."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _end_quietly() -> int:
    """Return the code of a process whose reader has gone, as of `head` in a pipe."""
    # what is left in the buffer would fail again at exit, with a message
    with suppress(OSError):  # no descriptor: a stream in memory
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _remedy(error: OSError) -> str | None:
    """Return what to do about an error of the machine; None for any other error."""
    if error.errno in DISK_FULL:
        return "free disk space or choose another output folder"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return _descriptor_remedy()
    if error.errno in (errno.ENOMEM, errno.EAGAIN):  # EAGAIN: a process or thread too many
        return _memory_remedy()
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if error.errno in DISK_AWAY:
        return "check that the disk is mounted and responds"
    return None


def _remedy_of_import(message: str) -> str | None:
    if os.strerror(errno.EMFILE) in message:
        return _descriptor_remedy()
    if os.strerror(errno.ENOMEM) in message or "failed to map segment" in message:
        return _memory_remedy()
    return None


def _descriptor_remedy() -> str:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"the limit of open files is {limit}: raise it (ulimit -n 4096) or lower data.workers"


def _memory_remedy() -> str:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return "free memory or lower data.workers"
    return f"the limit of memory is {limit >> 10} kB: raise it (ulimit -v unlimited)"
