"""Run a command: user errors become one line on stderr and an exit code. Imports no torch."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from hiera_video.errors import HieraVideoError

USER_ERROR, INTERRUPTED = 2, 130
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run `main` as the process's command and exit with its code."""
    # Set before torch is imported: spinning OpenMP threads slow a step down up to eightfold when
    # loader workers or other processes share the cores (measured on 2 cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(exit_code(main))


def exit_code(main: Callable[[], int]) -> int:
    """Return the exit code of `main`; print an error that the user's input caused as one line."""
    try:
        return main()
    except HieraVideoError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        message = (
            f"{where}{error.strerror}; free disk space or choose another output folder, then run "
            "the same command again"
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR
