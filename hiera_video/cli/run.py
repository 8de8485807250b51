"""The edge between a tool and its user: errors become one line and an exit code. No torch."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable

from hiera_video.errors import HieraVideoError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_tool(main: Callable[[], int]) -> None:
    """Run `main` and exit with its code; what the user's input caused becomes one line and exit code 2."""
    # before torch is imported: a thread that waits must not spin, or the loader's workers, and whoever else shares the
    # cores, slow a step down up to eightfold (measured on 2 cores with one other process)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        code = main()
    except HieraVideoError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; make room or choose another folder for what is written, then run the "
              "same command again", file=sys.stderr)  # fmt: skip
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
