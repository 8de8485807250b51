"""Film strips of the report, from video files and folders of frames."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.eval.report import write_report
from hiera_video.eval.results import EvalSetup, write_results
from hiera_video.eval.views import Predictions
from hiera_video.video.encode import write_video
from hiera_video.video.options import Backend, FrameFolder

SHADES = [10, 50, 90, 130, 170, 210]


def film_strips(
    folder: Path, paths: list[Path], decoder: Backend, *, num_frames: int | None = None
) -> list[np.ndarray]:
    """Return the strips of a report in which every video is predicted as class b."""
    records = tuple(
        Record(path=str(path), label=row % 2, row=row, num_frames=num_frames)
        for row, path in enumerate(paths)
    )
    manifest = Manifest(records=records, class_names=("a", "b"), multi_label=False, source="list")
    logits = np.array([[[0.0, 2.0]]] * len(paths), np.float32)
    predictions = Predictions(np.arange(len(paths)), logits, ())
    setup = EvalSetup(model="m", checkpoint="c", clips=1, crops=1, precision="fp32")
    results = write_results(folder, setup, predictions, manifest)
    page = write_report(folder, results, predictions, manifest, [], decoder).read_text()
    urls = re.findall(r'<img src="data:image/\w+;base64,([^"]+)" alt="frames of', page)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(url))).convert("RGB")) for url in urls
    ]


@pytest.mark.parametrize("kind", ["files", "folders"])
def test_strips_show_the_frames_in_order(tmp_path: Path, kind: str) -> None:
    paths = []
    for name in ("x", "y"):
        frames = [np.full((96, 96, 3), shade, np.uint8) for shade in SHADES]
        if kind == "files":
            write_video(tmp_path / f"{name}.mp4", iter(frames), fps=6)
            paths.append(tmp_path / f"{name}.mp4")
        else:
            (tmp_path / name).mkdir()
            unused = np.zeros((96, 96, 3), np.uint8)  # beyond the list's num_frames
            for number, frame in enumerate([*frames, unused]):
                Image.fromarray(frame).save(tmp_path / name / f"img_{number:05d}.png")
            paths.append(tmp_path / name)
    decoder: Backend = FrameFolder(template="img_%05d.png") if kind == "folders" else "pyav"
    strips = film_strips(tmp_path, paths, decoder, num_frames=6 if kind == "folders" else None)
    assert len(strips) == 2
    for strip in strips:
        found = [int(strip[48, 48 + 100 * place, 0]) for place in range(6)]
        assert found == pytest.approx(SHADES, abs=4)
