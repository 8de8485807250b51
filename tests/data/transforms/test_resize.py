"""Resizing equals torch's `interpolate` to float rounding; views share resized frames."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from hiera_video.data.transforms.multicrop import ReusedBuffer
from hiera_video.data.transforms.resize import CropResizer, bilinear_taps
from hiera_video.data.transforms.train_eval import EvalTransform

MEAN, STD = (0.45, 0.40, 0.35), (0.225, 0.25, 0.2)


@pytest.mark.parametrize(
    ("length", "size"), [(33, 56), (64, 56), (85, 74), (1, 5), (5, 1), (90, 31), (24, 24)]
)
def test_taps_are_the_weights_of_interpolate(length: int, size: int) -> None:
    unit = torch.eye(length)[None, :, :, None].repeat(1, 1, 1, 2)  # each channel has one bright row
    made = torch.nn.functional.interpolate(unit, size=(size, 2), mode="bilinear")[0, :, :, 0].T
    places, weights = bilinear_taps(length, size)
    torch.testing.assert_close(
        torch.zeros(size, length).scatter_add_(1, places, weights), made, atol=2.5e-7, rtol=0
    )


def test_a_part_of_the_resized_frame() -> None:
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8))
    rows, columns = range(5, 37), range(8, 40)
    resizer = CropResizer((50, 61), (40, 49), rows=rows, columns=columns, mean=MEAN, std=STD)
    whole = torch.nn.functional.interpolate(
        frame.permute(2, 0, 1)[None].double(), size=(40, 49), mode="bilinear"
    )[0]
    means, stds = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = ((whole / 255 - means) / stds)[:, 5:37, 8:40].float()
    torch.testing.assert_close(resizer(frame) - resizer.shift, expected, atol=2e-5, rtol=0)


def test_clips_may_share_frames_and_repeat_them() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 52, 3), dtype=np.uint8)
    transform = EvalTransform(32, 3, MEAN, STD)
    clips = [[0, 1, 2], [2, 2, 4]]
    found = transform.views_of(frames, clips)
    # the overlap of the three crops is stored once
    assert len(found) == 6 and found.clips.shape == (2, 3, 3, 32, 41)
    expected = torch.cat([transform(frames[clip]) for clip in clips])
    assert torch.equal(found.stack(), expected)
    assert [view.shape for view in found] == [(3, 3, 32, 32)] * 6


def test_a_buffer_is_reused_only_when_nothing_refers_to_it() -> None:
    buffer = ReusedBuffer()
    first = buffer.take((2, 3))
    place = first.data_ptr()
    view = first[1:]
    del first
    second = buffer.take((2, 3))
    assert second.data_ptr() != place  # a view keeps it
    place = second.data_ptr()
    del second
    third = buffer.take((2, 3))
    assert third.data_ptr() == place and view.shape == (1, 3)
    assert buffer.take((4,)).shape == (4,) and third.shape == (2, 3)
    assert pickle.loads(pickle.dumps(buffer)).take((5,)).shape == (5,)


def test_views_that_are_kept_do_not_change() -> None:
    transform = EvalTransform(32, 3, MEAN, STD)
    drawn = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 52, 3), dtype=np.uint8)
    kept = [transform.views_of(part, [[0, 1, 2]]) for part in drawn]
    for item, part in zip(kept, drawn, strict=True):
        assert torch.equal(item.stack(), transform(part))
    assert not torch.equal(kept[0].clips, kept[1].clips)
