"""Films as a PNG, a GIF and frames: order, captions, size and time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hiera_video.viz import films
from hiera_video.viz.films import ClipFilm, Rendering, encode_gif, film_frames, film_sheet
from hiera_video.viz.sheet import Strip


def film(*levels: int, length: int = 16) -> ClipFilm:
    renderings = tuple(
        Rendering(caption=f"level {level}", frames=np.full((length, 32, 32, 3), level, np.uint8))
        for level in levels
    )
    return ClipFilm(title="a.mp4", renderings=renderings, fps=8.0)


def test_a_sheet_has_eight_frames_of_each_rendering_below_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Strip] = []

    def keep(strips: list[Strip]) -> bytes:
        drawn.extend(strips)
        return b""

    monkeypatch.setattr(films, "contact_sheet", keep)
    frames = np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1).repeat(3, axis=3)
    rendering = Rendering(caption="one", frames=frames)
    film_sheet([ClipFilm(title="a.mp4", renderings=(rendering, rendering), fps=8.0)])
    assert [(strip.title, strip.heading) for strip in drawn] == [
        ("a.mp4  one", True),
        ("one", False),
    ]
    first = drawn[0].frames
    assert first is not None and first[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 9, 11, 13, 15]


def test_moving_pictures_have_renderings_side_by_side_and_clips_below() -> None:
    pictures = film_frames([film(10, 60), film(200, length=8)])
    assert len(pictures) == 16
    height, width = pictures[0].shape[:2]
    assert height % 2 == width % 2 == 0
    # below a margin of 8 and a title of 20; frames are 192 high, 2 apart
    assert pictures[3][100, [50, 8 + 192 + 2 + 50], 0].tolist() == [10, 60]
    assert pictures[15][28 + 192 + 8 + 16 + 20 + 100, 50, 0] == 200


def test_a_gif_repeats_its_frames_at_their_rate() -> None:
    pictures = [np.full((4, 6, 3), level, np.uint8) for level in (0, 120, 250)]
    gif = Image.open(io.BytesIO(encode_gif(pictures, fps=8.0)))
    assert (gif.format, gif.size) == ("GIF", (6, 4))
    colours = []
    for index in range(3):
        gif.seek(index)
        colours.append(np.asarray(gif.convert("RGB"))[0, 0, 0])
    assert colours == [0, 120, 250]
    with pytest.raises(EOFError):
        gif.seek(3)
    assert (gif.info["duration"], gif.info["loop"]) == (120, 0)  # hundredths of a second
