from hiera_video.cli import run
from hiera_video.cli.datasets.ava import main

if __name__ == "__main__":
    run.run_tool(main)
