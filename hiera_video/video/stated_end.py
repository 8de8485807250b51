"""End of a video as its header states it: a quick check before anything is decoded."""

from __future__ import annotations

import av

from hiera_video.errors import DecodeError
from hiera_video.video.container import check_file, open_container
from hiera_video.video.reader import Limits


def stated_end(path: str) -> float | None:
    """Return the second at which a video file ends by its header.

    Its sound may end later than its pictures.

    Returns:
        The end on the file's clock; None if the header states none, or the file is unreadable.
    """
    try:
        check_file(path)
        with open_container(f"file:{path}", Limits()) as container:
            if container.duration is None:
                return None
            return float((container.start_time or 0) + container.duration) / av.time_base
    except (DecodeError, av.FFmpegError, OSError, ValueError):
        return None
