"""`predict --boxes`: lines, files, a drawn video, and its messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hiera_video as hv
from hiera_video.cli.predict import main
from hiera_video.config.load import load_config, save_config
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.models.hiera import Hiera
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.video import open_video
from hiera_video.video.encode import write_video
from hiera_video.workflows.predict_boxes import read_boxes

LINES = "film,0.5,0,0.1,0.4,0.9\nfilm,0.5,0.6,0.1,1,0.9,0.4\nfilm,2,0.2,0.2,0.5,0.6,stand,7\n"


def save_run(folder: Path, model: Hiera, *overrides: str) -> Path:
    folder.mkdir(exist_ok=True)
    keys = ["train.task=detect", f"out_dir={folder}", *overrides]
    save_config(load_config("motion_hiera_micro", keys), folder / "config.yaml")
    meta = {"model": {"num_classes": 3}, "class_names": ["up", "=down", "stay"]}
    store = CheckpointStore(folder / "checkpoints", keep=1)
    store.save(1, model.state_dict(), {}, {**meta, "multi_label": True}, best=True)
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, random_model: Callable[[], Hiera]) -> Path:
    """The folder of a run of action detection with three classes and random weights."""
    return save_run(tmp_path_factory.mktemp("detector"), random_model())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with boxes.csv and videos/film.mp4 (3 s, wide)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (30, 40, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "videos/film.mp4", frames, fps=10)
    (tmp_path / "boxes.csv").write_text(LINES)
    return tmp_path


@pytest.mark.slow
def test_lines_and_files(folder: Path, detector: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [f"output=out.{kind}" for kind in ("csv", "json", "mp4")]
    code = main(["--run", str(detector), "--boxes", "boxes.csv", "--topk", "2", *outputs])
    assert code == 0
    film = str(folder / "videos/film.mp4")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{film}  0.50 s  box 0.000 0.100 0.400 0.900  ")
    boxes = [(0.0, 0.1, 0.4, 0.9), (0.6, 0.1, 1.0, 0.9), (0.2, 0.2, 0.5, 0.6)]
    expected = hv.detect(detector, film, boxes, [0.5, 0.5, 2.0], topk=2)
    entries = json.loads(Path("out.json").read_text())
    for entry, found in zip(entries, expected, strict=True):
        assert (entry["path"], entry["second"]) == (film, found.second)
        assert entry["box"] == pytest.approx(found.box, abs=1e-6)
        assert [answer["label"] for answer in entry["answers"]] == [
            label for label, _ in found.top_classes
        ]
        assert [answer["probability"] for answer in entry["answers"]] == pytest.approx(
            [value for _, value in found.top_classes], abs=1e-5
        )
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["path", "second", "x1", "y1", "x2", "y2", "rank", "label", "probability"]
    assert list(rows[0]) == columns and [row["rank"] for row in rows] == ["1", "2"] * 3
    assert {row["label"] for row in rows} <= {"up", "'=down", "stay"}
    with open_video("out.mp4") as video:
        assert (video.info.num_frames, video.info.width, video.info.height) == (30, 768, 480)


@pytest.mark.slow
def test_one_video_of_the_list_and_times_of_films(
    folder: Path, detector: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "videos/other.mp4").write_bytes((folder / "videos/film.mp4").read_bytes())
    Path("boxes.csv").write_text("film,900.5,0,0,1,1\nother,901,0,0,0.5,1\n")
    options = ["--run", str(detector), "--boxes", "boxes.csv", "--start-seconds", "900"]
    with pytest.raises(
        ConfigError, match=r"output=a.mp4: is one video, and the boxes are in 2; name one of them"
    ):
        main([*options, "output=a.mp4"])
    assert main(["videos/../videos/other.mp4", *options, "output=a.mp4"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder}/videos/other.mp4  901.00 s  box 0.000")
    assert Path("a.mp4").is_file()
    (folder / "videos/other.mp4").write_text("no video")
    assert main(["videos", *options]) == 3
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["videos/other.mp4", *options, "output=b.mp4"]) == 2
    assert not Path("b.mp4").exists()
    with pytest.raises(ManifestError, match=r"boxes.csv:1: second 900.5 lies outside .*film.mp4"):
        main(["videos/film.mp4", *options[:4]])


def test_names_of_the_list_start_from_data_root(folder: Path, detector: Path) -> None:
    Path("boxes.csv").write_text("videos/film.mp4,0.5,0,0,1,1\nvideos/other.mp4,1,0,0,1,1\n")
    (folder / "videos/other.mp4").write_bytes((folder / "videos/film.mp4").read_bytes())
    config = load_config(detector / "config.yaml")
    for videos, seconds in ((None, [0.5, 1.0]), ("videos/other.mp4", [1.0])):
        frames = read_boxes("boxes.csv", config, videos=videos, root=".", follow_links=False)
        assert [frame.second for frame in frames] == seconds
    with pytest.raises(ManifestError, match=r"no video named 'videos/film.mp4' in videos or its"):
        main(["videos/film.mp4", "--run", str(detector), "--boxes", "boxes.csv"])


@pytest.mark.slow
def test_the_key_data_root_reaches_the_list(folder: Path, detector: Path) -> None:
    Path("boxes.csv").write_text("videos/film.mp4,0.5,0,0,1,1\n")
    options = ["--run", str(detector), "--boxes", "boxes.csv", "data.root=."]
    assert main(["videos/film.mp4", *options]) == 0


@pytest.mark.slow
def test_folders_of_frames(
    folder: Path, random_model: Callable[[], Hiera], capsys: pytest.CaptureFixture[str]
) -> None:
    detector = save_run(folder / "run", random_model(), "data.decoder=frames", "data.frame_fps=10")
    (folder / "frames/film").mkdir(parents=True)
    for number in range(30):
        picture = Image.new("RGB", (64, 40), (8 * number, 0, 0))
        picture.save(folder / f"frames/film/{number:05d}.png")
    for path in ("frames", "frames/film"):
        assert main([path, "--run", str(detector), "--boxes", "boxes.csv"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3


def test_errors(folder: Path, detector: Path, random_model: Callable[[], Hiera]) -> None:
    run, boxes = ["--run", str(detector)], ["--boxes", "boxes.csv"]
    wrong = {
        r"--start-seconds 9.0: goes with --boxes only": ["a.mp4", *run, "--start-seconds", "9"],
        r"--boxes boxes.csv: needs --run DIR, a run of train.task=detect": [
            *boxes,
            *("--model", "hiera_base_16x224", "--checkpoint", "mae_k400_ft_k400"),
        ],
        r"--window 2: does not go with --boxes; remove one": [*run, *boxes, "--window", "2"],
        r"--boxes boxes.csv: takes one PATH, a video or the folder of the videos, not 2": [
            "a",
            "b",
            *run,
            *boxes,
        ],
        r"--topk 0: must be 1 or more": [*run, *boxes, "--topk", "0"],
        r"--start-seconds nan: must be a number": [*run, *boxes, "--start-seconds", "nan"],
        r"output=a.avi: must end in .csv or .json or .mp4": [*run, *boxes, "output=a.avi"],
        r"no/a.mp4: cannot be written, there is no folder no": [*run, *boxes, "output=no/a.mp4"],
        r"gone: no such file or folder": ["gone", *run, *boxes],
        r"boxes.csv: has no box in notes.mp4; name a video that it lists": [
            "notes.mp4",
            *run,
            *boxes,
        ],
    }
    write_video(folder / "notes.mp4", [np.zeros((16, 16, 3), np.uint8)])
    for words, arguments in wrong.items():
        if "notes" in words:
            (folder / "film.mp4").write_bytes((folder / "videos/film.mp4").read_bytes())
        with pytest.raises(ConfigError, match=words):
            main(arguments)
    with pytest.raises(ManifestError, match=r"none.csv: no such file; write lines of video,second"):
        main([*run, "--boxes", "none.csv"])
    classifier = save_run(folder / "classifier", random_model(), "train.task=classify")
    with pytest.raises(
        ConfigError, match=r"classifier: is a run of train.task=classify, which has no boxes"
    ):
        main(["--run", str(classifier), *boxes])
