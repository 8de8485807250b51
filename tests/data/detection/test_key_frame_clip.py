"""The frames of a clip around a key frame, as literals."""

from __future__ import annotations

import pytest

from hiera_video.data.detection.key_frame_clip import centred_indices, frame_at


def test_avas_clip() -> None:
    """PySlowFast: `range(center - 32, center + 32, 4)`, clamped; 64 frames around the key frame."""
    assert centred_indices(60, count=16, stride=4, num_frames=27_030) == [
        *(28, 32, 36, 40, 44, 48, 52, 56),
        *(60, 64, 68, 72, 76, 80, 84, 88),
    ]
    assert centred_indices(8, count=8, stride=4, num_frames=14) == [0, 0, 0, 4, 8, 12, 13, 13]


def test_another_frame_rate_keeps_the_duration() -> None:
    # 25 fps: a stride of 3.33 frames
    assert centred_indices(50, count=4, stride=4 * 25 / 30, num_frames=100) == [43, 46, 50, 53]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, 0),
        (2.0, 60),  # AVA: (902 - 900) · 30
        (1.999, 60),  # lists round
        (2.02, 60),  # the frame that is shown
        (3.3, 99),
        (3.3333, 99),  # the last frame is shown until then
        (3.34, None),
        (-0.01, None),
    ],
)
def test_the_frame_of_a_time(seconds: float, expected: int | None) -> None:
    assert frame_at([number / 30 for number in range(100)], 30.0, seconds) == expected
