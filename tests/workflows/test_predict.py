"""Predictions for files and folders: text, CSV, JSON, exit codes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hiera_video as hv
from hiera_video.cli import predict as cli_predict
from hiera_video.config.load import load_config, save_config
from hiera_video.data import dataset as dataset_module
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.workflows import load_run
from hiera_video.workflows.extract import read_input
from hiera_video.workflows.predict import (
    ModelSource,
    find_records,
    find_videos,
    predict_files,
    run_of_checkpoint,
)

CONFIG = Path(__file__).parents[2] / "configs/motion_hiera_micro.yaml"


def predict(paths: list[Path], run: Path, **options: Any) -> int:
    defaults = dict.fromkeys(("window", "step", "csv_file", "json_file"))
    return predict_files(paths, ModelSource(str(run)), **{"topk": 2, **defaults, **options})


def test_files_and_folders(films: Path, tmp_path: Path) -> None:
    a, b = films / "a.mp4", films / "deep" / "b.mp4"
    assert find_videos([str(films)]) == [a, b] and find_videos([str(b), str(films)]) == [b, a]
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: contains no videos (.")):
        find_videos([str(tmp_path)])
    with pytest.raises(ConfigError, match="nowhere: no such file or folder"):
        find_videos(["nowhere"])
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "00001.jpg").touch()
    words = rf", but folders of pictures \({tmp_path}/v …\); data.decoder=frames reads those"
    with pytest.raises(ConfigError, match=words):
        find_videos([str(tmp_path)])


def test_links_to_folders(films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """I 4.4: followed when the user says so, and not passed over in silence."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "class").symlink_to(films)
    with pytest.raises(
        ConfigError,
        match=r"contains no videos .* apart from 1 link to folders; pass --follow-links, or set",
    ):
        find_videos([str(folder)])
    found = find_videos([str(folder)], follow_links=True)
    assert found == [folder / "class/a.mp4", folder / "class/deep/b.mp4"]
    assert find_videos([str(folder)], root=str(films.parent)) == found
    (folder / "c.mp4").symlink_to(films / "a.mp4")
    assert find_videos([str(folder)]) == [folder / "c.mp4"]
    assert "did not follow 1 link to folders" in caplog.text


@pytest.fixture
def frames_run(run_folder: Path, tmp_path: Path) -> Path:
    """The same run, reading folders of frames."""
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    overrides = ["data.decoder=frames", "data.frame_template=img_%05d.png", "data.frame_fps=16"]
    save_config(load_config(CONFIG, overrides), folder / "config.yaml")
    return folder


@pytest.fixture
def frame_folders(films: Path, tmp_path: Path) -> Path:
    """Folders `a` and `deep/b` with the frames of `a.mp4`, and `other` with other pictures."""
    folder = tmp_path / "videos"
    with hv.open_video(films / "a.mp4") as video:
        frames = video.frames(range(32))
    for name in ("a", "deep/b"):
        (folder / name).mkdir(parents=True)
        for number, frame in enumerate(frames, 1):
            Image.fromarray(frame).save(folder / name / f"img_{number:05d}.png")
            Image.fromarray(frame).save(folder / name / f"flow_{number:05d}.png")
    (folder / "other").mkdir()
    (folder / "other" / "flow_00001.png").write_bytes(b"")
    return folder


def test_folders_of_frames(frames_run: Path, frame_folders: Path, films: Path) -> None:
    backend = ModelSource(str(frames_run)).backend()
    a, b = frame_folders / "a", frame_folders / "deep" / "b"
    assert find_videos([str(frame_folders)], backend) == [a, b]
    assert find_videos([str(a)], backend) == [a]
    for path, words in (
        (
            frame_folders / "other",
            "contains no frames that match the run's data.frame_template=img_%05d.png",
        ),
        (
            films / "a.mp4",
            r"is a file, but the run reads folders of frames \(data.decoder=frames\); extract the",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            find_videos([str(path)], backend)
    with pytest.raises(ConfigError, match=r"contains no config.yaml; give the out_dir of a run"):
        ModelSource(str(films)).backend()


def test_folders_of_frames_as_input_of_extraction(
    frames_run: Path, frame_folders: Path, films: Path
) -> None:
    def paths(source: str) -> list[str]:
        config = load_config(frames_run / "config.yaml", [f"features.input={source}"])
        return [record.path for record in read_input(config).records]

    a, b = frame_folders / "a", frame_folders / "deep" / "b"
    assert paths(str(frame_folders)) == [str(a), str(b)]
    assert paths(f"{frame_folders}/[ab]") == [str(a)]
    with pytest.raises(ConfigError, match=r"/\*.mp4: matches no folder of frames"):
        paths(f"{films}/*.mp4")


def test_frames_get_the_prediction_of_their_video(
    run_folder: Path,
    frames_run: Path,
    frame_folders: Path,
    films: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = frame_folders / "a"
    assert predict([path], frames_run, topk=1) == 0
    (best,) = hv.predict(run_folder, films / "a.mp4", topk=1)
    expected = f"{path}  0.00–2.00 s  {best.label} {best.probability:.1%}\n"
    assert capsys.readouterr().out == expected


def test_predictions_of_whole_videos(run_folder: Path, films: Path, tmp_path: Path) -> None:
    files = {"csv_file": str(tmp_path / "p.csv"), "json_file": str(tmp_path / "p.json")}
    assert predict(find_videos([str(films)]), run_folder, **files) == 0
    rows = json.loads((tmp_path / "p.json").read_text())
    assert [(Path(row["path"]).name, row["start_seconds"], row["end_seconds"]) for row in rows] == [
        ("a.mp4", 0, 2),
        ("b.mp4", 0, 1.5),
    ]
    for row in rows:
        expected = hv.predict(run_folder, row["path"], topk=2)
        assert [item["label"] for item in row["answers"]] == [item.label for item in expected]
        assert row["answers"][0]["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
    with (tmp_path / "p.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 and lines[1]["rank"] == "2"
    assert lines[0]["label"] == rows[0]["answers"][0]["label"]


def test_overrides_of_the_runs_configuration(
    run_folder: Path, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_predict.main([str(films / "a.mp4"), "--run", str(run_folder), "test.clips=1"]) == 0
    assert "a.mp4  0.50–1.50 s  " in capsys.readouterr().out  # the clip in the middle
    run = ModelSource(str(run_folder), overrides=("test.crops=3",)).load()
    assert run.config.test.crops == run.transform.crops == 3
    weights = ModelSource(None, None, "hiera_micro_16x32", "x", ("data.decoder=decord",))
    assert weights.backend() == "decord"


def test_predictions_along_a_video(run_folder: Path, films: Path, tmp_path: Path) -> None:
    files = {"json_file": str(tmp_path / "p.json")}
    assert predict([films / "a.mp4"], run_folder, window="clip", step=0.5, **files) == 0
    rows = json.loads((tmp_path / "p.json").read_text())
    assert [row["start_seconds"] for row in rows] == [0, 0.5, 1]


def test_a_start_slightly_below_zero_is_printed_without_a_sign(
    run_folder: Path,
    films: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictions = [load_run.Prediction("up", 1.0, ((-0.0003, 2.0),))]
    monkeypatch.setattr(load_run, "predict_videos", lambda *_: iter([predictions]))
    assert predict([films / "a.mp4"], run_folder) == 0
    assert "  0.00–2.00 s  up 100.0%" in capsys.readouterr().out


def test_unreadable_videos(run_folder: Path, films: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes = films / "notes.txt"
    assert predict([films / "a.mp4", notes], run_folder) == 3
    *_, error, count = caplog.messages
    assert [line for line in caplog.messages if line.startswith("error: ")] == [error]
    assert str(notes) in error and count == "1 of 2 videos unreadable"
    assert predict([notes], run_folder) == 2


def test_a_full_disk_is_an_error(run_folder: Path, films: Path) -> None:
    words = r"/dev/full: cannot be written \(No space left on device\)"
    with pytest.raises(ConfigError, match=words):
        predict([films / "a.mp4"], run_folder, csv_file="/dev/full")


def test_output_files_are_checked_before_the_run_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, no_run = tmp_path / "no" / "a.csv", tmp_path / "no_run"
    words = rf"a.csv: cannot be written, there is no folder {missing.parent}; create it first"
    for name in ("csv_file", "json_file"):
        with pytest.raises(ConfigError, match=words):
            predict([], no_run, **{name: str(missing)})
    with pytest.raises(ConfigError, match="cannot be written, it is a folder; name a file"):
        predict([], no_run, csv_file=str(tmp_path))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"b.csv: cannot be written; check the permissions"):
        predict([], no_run, csv_file=str(tmp_path / "b.csv"))


def test_weights_of_a_model(run_folder: Path, films: Path, tmp_path: Path) -> None:
    folder = hv.save_pretrained(hv.load(run_folder).model, tmp_path / "named")  # type: ignore[arg-type]
    source = ModelSource(None, model="hiera_micro_16x32", pretrained=str(folder))
    assert source.backend() == "pyav"
    options = dict.fromkeys(("window", "step", "csv_file"))
    file = tmp_path / "p.json"
    assert predict_files([films / "a.mp4"], source, topk=3, json_file=str(file), **options) == 0
    (row,) = json.loads(file.read_text())
    loaded = hv.load(folder, model="hiera_micro_16x32")
    expected = hv.predict(loaded, films / "a.mp4", topk=3)
    assert [item["label"] for item in row["answers"]] == [item.label for item in expected]


@pytest.mark.fault
def test_a_hung_decoder_costs_one_video(
    films: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue I, 4.11: `predict` has the deadline that training has."""
    run = hv.load(run_folder)
    config = replace(run.config, data=replace(run.config.data, deadline_seconds=1.0))
    real, hung = dataset_module.open_video, str(films / "deep" / "b.mp4")

    def open_video(source: Any, *options: Any) -> Any:
        if source == hung:
            time.sleep(600)
        return real(source, *options)

    monkeypatch.setattr(dataset_module, "open_video", open_video)
    found = load_run.predict_videos(replace(run, config=config), [hung, films / "a.mp4"], topk=1)
    first, second = found
    assert isinstance(first, DecodeError) and first.reason == "hung"
    assert not isinstance(second, DecodeError) and second == hv.predict(run, films / "a.mp4", 1)


def test_a_list_is_predicted_in_its_order_and_segments(
    run_folder: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue I, section 5."""
    listing = films / "list.csv"
    listing.write_text("deep/b.mp4 0\na.mp4 1 0.5 1.5\n")
    records = find_records([str(listing), str(films / "a.mp4")])
    assert [(Path(record.path).name, record.row, record.start_seconds) for record in records] == [
        ("b.mp4", 0, None),
        ("a.mp4", 1, 0.5),
        ("a.mp4", 2, None),
    ]
    assert predict(records, run_folder, topk=1) == 0
    times = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert times == ["0.00–1.50 s", "0.50–1.50 s", "0.00–2.00 s"]
    assert predict(records[1:2], run_folder, window=0.5, topk=1) == 0
    times = [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert times == ["0.50–1.00 s", "1.00–1.50 s"]
    listing.unlink()


def test_times_of_the_frames_that_were_seen(
    run_folder: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue I, section 5: a clip of 1 s in the middle of a window of 2 s."""
    files = {"json_file": str(tmp_path / "p.json"), "csv_file": str(tmp_path / "p.csv")}
    assert predict([films / "a.mp4"], run_folder, window=2.0, topk=1, **files) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{films / 'a.mp4'}  0.00–2.00 s (frames of 0.50–1.50 s)  ")
    (row,) = json.loads((tmp_path / "p.json").read_text())
    assert row["seen_seconds"] == [0.5, 1.5]
    with (tmp_path / "p.csv").open() as file:
        (answer,) = csv.DictReader(file)
    assert (answer["seen_start_seconds"], answer["seen_end_seconds"]) == ("0.5", "1.5")


def test_a_run_in_a_folder_called_checkpoints_is_a_run(tmp_path: Path) -> None:
    for run in (tmp_path, tmp_path / "checkpoints/first"):
        (run / "checkpoints/best").mkdir(parents=True)
        (run / "config.yaml").touch()
    assert run_of_checkpoint(tmp_path / "checkpoints/first") is None
    assert run_of_checkpoint(tmp_path / "checkpoints/best") == tmp_path
    assert run_of_checkpoint(tmp_path / "checkpoints/first/checkpoints/best") == run
