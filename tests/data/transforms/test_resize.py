"""Scaling against torch's own: the same weights to the bit, the same pictures to float rounding; crops of scaled clips."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from hiera_video.data.transforms.multicrop import Crops, Memory
from hiera_video.data.transforms.resize import Scaling, taps
from hiera_video.data.transforms.train_eval import EvalTransform

MEAN, STD = (0.45, 0.40, 0.35), (0.225, 0.25, 0.2)


@pytest.mark.parametrize(
    ("length", "size"), [(33, 56), (64, 56), (85, 74), (1, 5), (5, 1), (90, 31), (24, 24)]
)
def test_the_weights_are_those_of_interpolate(length: int, size: int) -> None:
    unit = torch.eye(length)[None, :, :, None].repeat(1, 1, 1, 2)  # each channel has one bright row
    made = torch.nn.functional.interpolate(unit, size=(size, 2), mode="bilinear")[0, :, :, 0].T
    places, weights = taps(length, size)
    torch.testing.assert_close(
        torch.zeros(size, length).scatter_add_(1, places, weights), made, atol=2.5e-7, rtol=0
    )


def test_a_part_of_the_scaled_picture() -> None:
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 61, 3), dtype=np.uint8))
    rows, columns = range(5, 37), range(8, 40)
    scaling = Scaling((50, 61), (40, 49), rows=rows, columns=columns, mean=MEAN, std=STD)
    whole = torch.nn.functional.interpolate(
        frame.permute(2, 0, 1)[None].double(), size=(40, 49), mode="bilinear"
    )[0]
    means, stds = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = ((whole / 255 - means) / stds)[:, 5:37, 8:40].float()
    torch.testing.assert_close(scaling(frame) - scaling.shift, expected, atol=2e-5, rtol=0)


def test_clips_may_share_frames_and_repeat_them() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 52, 3), dtype=np.uint8)
    transform = EvalTransform(32, 3, MEAN, STD)
    clips = [[0, 1, 2], [2, 2, 4]]
    found = transform.views_of(frames, clips)
    assert len(found) == 6 and found.clips.shape == (
        2,
        3,
        3,
        32,
        41,
    )  # what the three crops overlap in is there once
    expected = torch.cat([transform(frames[clip]) for clip in clips])
    assert torch.equal(found.stacked(), expected)
    assert [view.shape for view in found] == [(3, 3, 32, 32)] * 6
    assert torch.equal(
        Crops.joined([transform.views_of(frames, [clip]) for clip in clips]).stacked(), expected
    )


def test_memory_is_used_again_only_when_nobody_looks_at_it() -> None:
    memory = Memory()
    first = memory((2, 3))
    place = first.data_ptr()
    view = first[1:]
    del first
    second = memory((2, 3))
    assert second.data_ptr() != place  # a view keeps it
    place = second.data_ptr()
    del second
    third = memory((2, 3))
    assert third.data_ptr() == place and view.shape == (1, 3)
    assert memory((4,)).shape == (4,) and third.shape == (2, 3)
    assert pickle.loads(pickle.dumps(memory))((5,)).shape == (5,)


def test_videos_that_are_kept_do_not_change() -> None:
    transform = EvalTransform(32, 3, MEAN, STD)
    drawn = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 52, 3), dtype=np.uint8)
    kept = [transform.views_of(part, [[0, 1, 2]]) for part in drawn]
    assert [
        torch.equal(item.stacked(), transform(part)) for item, part in zip(kept, drawn, strict=True)
    ] == [
        True,
        True,
    ]
    assert not torch.equal(kept[0].clips, kept[1].clips)
