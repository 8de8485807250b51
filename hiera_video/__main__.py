"""Run a command without the console script: `python -m hiera_video train …`."""

from hiera_video.cli.main import main

if __name__ == "__main__":
    main()
