import os

from hiera_video.cli import run
from hiera_video.cli.datasets.motion import main

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the work is done by processes
    run.run_tool(main)
