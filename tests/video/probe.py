"""Read videos in a light process of its own: `python probe.py backend` takes paths, a line each, and answers a line of
JSON each: the reason (null if all was read), frames, seconds, kB above the memory before. A crash or a hang is its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from hiera_video.errors import DecodeError
from hiera_video.video import open_video


def memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    for line in sys.stdin:
        path, reason, frames = line.rstrip("\n"), None, 0
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, began = memory("VmRSS"), time.monotonic()
        try:
            with open_video(path, sys.argv[1]) as video:
                count = len(video.times)
                frames = len(
                    video.frames(range(count))
                    if count <= 120
                    else video.frames([0, count // 2, count - 1])
                )
        except DecodeError as error:
            reason = error.reason
        answer = {"reason": reason, "frames": frames, "seconds": time.monotonic() - began}
        print(json.dumps({**answer, "peak_kb": memory("VmHWM") - before}), flush=True)


if __name__ == "__main__":
    main()
