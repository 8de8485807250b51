"""Tensors arrive as they were sent, and leave no file descriptor behind."""

from __future__ import annotations

from multiprocessing import Pipe
from pathlib import Path

import pytest
import torch

from hiera_video.data.dataset import VideoViews
from hiera_video.data.loading.shared_memory import receive, send
from hiera_video.data.transforms.multicrop import Crops


def test_tensors_arrive_as_they_were_sent() -> None:
    ours, theirs = Pipe()
    views = VideoViews(
        row=3,
        crops=Crops(clips=torch.randn(1, 3, 2, 4, 5), boxes=((0, 1, 4, 4),)),
        clip_seconds=((0.0, 1.0),),
        seconds=0.5,
    )
    odd = (
        torch.arange(7, dtype=torch.int16),
        torch.tensor(True),
        torch.zeros(0, 4),
        torch.randn(4, 6).t(),
    )
    half = torch.randn(3).to(torch.bfloat16)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    send(theirs, {"views": views, "odd": odd, "half": half, "words": ["a", None]})
    found = receive(ours)
    assert found["words"] == ["a", None] and found["views"].row == 3
    assert torch.equal(found["views"].views, views.views)
    for one, other in zip((*found["odd"], found["half"]), (*odd, half), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    found["half"].add_(1)  # its own memory, and writable
    del found, one
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours)
