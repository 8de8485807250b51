"""The report: its film strips, from video files and folders of frames, and its words."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hiera_video.data.dataset import UnreadableVideo
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


@pytest.mark.parametrize("multi_label", [False, True])
def test_words_of_the_page(tmp_path: Path, multi_label: bool) -> None:
    label = (0, 1) if multi_label else 0
    records = tuple(Record(path=f"/x/{row}.mp4", label=label, row=row) for row in range(3))
    manifest = Manifest(
        records=records, class_names=("a", "b"), multi_label=multi_label, source="list.csv"
    )
    unreadable = UnreadableVideo(row=2, path="/x/2.mp4", reason="container", message="-")
    logits = np.array([[[0.0, 2.0]], [[3.0, 0.0]]], np.float32)
    predictions = Predictions(np.arange(2), logits, (unreadable,), np.array([0.25, 0.75]))
    setup = EvalSetup(model="m", checkpoint="c", clips=1, crops=1, precision="fp32")
    results = write_results(tmp_path, setup, predictions, manifest)
    page = write_report(tmp_path, results, predictions, manifest, []).read_text()
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    metric = "100.0 % mAP" if multi_label else "50.0 % top-1"
    for words in (
        f"m 1×1 views per video · list.csv · c {metric} 95 % interval ",
        "2 of 3 videos evaluated 1 unreadable",
        "Unreadable videos row file reason 2 /x/2.mp4 container",
        "Slowest videos to read median over all videos: 500 ms ms file 750 1.mp4 250 0.mp4",
    ):
        assert words in text
    assert ("Most frequent confusions label prediction videos" in text) == (not multi_label)
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # no network


def test_namesakes_are_told_apart(tmp_path: Path) -> None:
    """Issue I, section 5: five `8.mp4` of five people."""
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    paths = [tmp_path / person / "run" / "8.mp4" for person in "abcde"]
    for path in paths:
        path.parent.mkdir(parents=True)
        write_video(path, frames, fps=8)
    film_strips(tmp_path, paths, "pyav")
    page = (tmp_path / "report.html").read_text()
    assert all(f"{person}/run/8.mp4" in page for person in "abcde")
    assert str(tmp_path) not in page


def test_mistakes_show_the_evidence_for_the_predicted_class(tmp_path: Path) -> None:
    paths = [tmp_path / "right.mp4", tmp_path / "wrong.mp4"]
    for path in paths:
        write_video(path, [np.full((96, 96, 3), 90, np.uint8)] * 6, fps=6)
    records = tuple(Record(path=str(path), label=row, row=row) for row, path in enumerate(paths))
    manifest = Manifest(records=records, class_names=("a", "b"), multi_label=False, source="list")
    predictions = Predictions(np.arange(2), np.array([[[2.0, 0.0]]] * 2, np.float32), ())
    setup = EvalSetup(model="m", checkpoint="c", clips=1, crops=1, precision="fp32")
    results = write_results(tmp_path, setup, predictions, manifest)
    drawn: list[tuple[str, int]] = []

    def draw(record: Record, target: int) -> np.ndarray:
        drawn.append((Path(record.path).name, target))
        return np.stack([np.full((96, 96, 3), 10 * time, np.uint8) for time in range(16)])

    page = write_report(
        tmp_path, results, predictions, manifest, [], draw_evidence=draw
    ).read_text()
    assert drawn == [("wrong.mp4", 0)]
    (url,) = re.findall(r'<img class="evidence" src="data:image/\w+;base64,([^"]+)"', page)
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(url))).convert("L"))
    found = [int(strip[48, 48 + 100 * place]) for place in range(6)]
    assert found == pytest.approx([0, 30, 60, 90, 120, 150], abs=4)
    assert 'title="evidence for a: red above the clip\'s mean, blue below"' in page
    assert "Below the frames: the middle clip with the evidence for the predicted class" in page
