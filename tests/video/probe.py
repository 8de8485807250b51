"""Read videos in a process of its own, for tests of crashes, hangs and memory.

`python probe.py backend` reads a path per line from stdin and writes a line of JSON for each: the
reason (null if readable), the number of frames, CPU seconds, and the peak memory in kB above the
start.
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
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before, began = memory("VmRSS"), time.process_time()
        try:
            with open_video(path, sys.argv[1]) as video:
                count = len(video.times)
                indices = range(count) if count <= 120 else [0, count // 2, count - 1]
                frames = len(video.frames(indices))
        except DecodeError as error:
            reason = error.reason
        answer = {
            "reason": reason,
            "frames": frames,
            "cpu_seconds": time.process_time() - began,
            "peak_kb": memory("VmHWM") - before,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
