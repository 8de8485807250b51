"""Prediction on files, folders and along a video: the test's own numbers, as text, CSV and JSON; one line for bad input."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import hiera_video as hv
from hiera_video.config.load import load_config, save_config
from hiera_video.errors import CheckpointError, ConfigError
from hiera_video.models.hiera import Hiera
from hiera_video.train.checkpoint import CheckpointStore
from hiera_video.video.encode import write_video
from hiera_video.workflows import load_run as hv_runs
from hiera_video.workflows.extract import read_input
from hiera_video.workflows.load_run import LoadedRun, named_answers
from hiera_video.workflows.predict import Answerer, find_videos, predict_files
from hiera_video.workflows.sliding_window import predict_live, predict_windows, window_starts

ROOT = Path(__file__).parents[2]
NAMES = ["to the right", "to the left", "up"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, answering_model: Callable[[], Hiera]) -> Path:
    """The folder of a finished run whose answers depend on what is seen."""
    folder = tmp_path_factory.mktemp("run")
    save_config(
        load_config(ROOT / "configs/motion_hiera_micro.yaml", [f"out_dir={folder}"]),
        folder / "config.yaml",
    )
    model = answering_model()
    meta = {"model": {"num_classes": 3}, "class_names": NAMES}
    CheckpointStore(folder / "checkpoints", keep=1).save(1, model.state_dict(), {}, meta, best=True)
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a.mp4` of 2 s, `deep/b.mp4` of 1.5 s, both 16 frames a second, beside a text file."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "deep").mkdir()
    generator = np.random.default_rng(0)
    for name, count in (("a.mp4", 32), ("deep/b.mp4", 24)):
        write_video(
            folder / name, generator.integers(0, 255, (count, 40, 48, 3), dtype=np.uint8), fps=16
        )
    (folder / "notes.txt").write_text("no video")
    return folder


def answered(paths: list[Path], run: Path, **options: Any) -> int:
    defaults = dict.fromkeys(("window", "step", "csv_file", "json_file"))
    return predict_files(
        paths, Answerer(str(run)), **{"topk": 2, "along": False, **defaults, **options}
    )


def test_where_stretches_start() -> None:
    assert window_starts(10, 4, 4) == [0, 4, 6]  # the last one ends with the video
    assert window_starts(8, 4, 2) == [0, 2, 4]
    assert window_starts(3, 4, 4) == [0]
    assert window_starts(8.1, 4, 4) == [0, 4]  # a tenth of a step may stay unseen


def test_files_and_folders(films: Path, tmp_path: Path) -> None:
    a, b = films / "a.mp4", films / "deep" / "b.mp4"
    assert find_videos([str(films)]) == [a, b] and find_videos([str(b), str(films)]) == [b, a]
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: holds no videos")):
        find_videos([str(tmp_path)])
    with pytest.raises(ConfigError, match="nowhere: no such file or folder"):
        find_videos(["nowhere"])


def test_folders_of_frames_of_a_run_that_reads_them(
    run: Path, films: Path, tmp_path: Path, tool: Any
) -> None:
    folder, videos = tmp_path / "run", tmp_path / "videos"
    shutil.copytree(run, folder)
    overrides = ["data.decoder=frames", "data.frame_template=img_%05d.png", "data.frame_fps=16"]
    save_config(
        load_config(ROOT / "configs/motion_hiera_micro.yaml", overrides), folder / "config.yaml"
    )
    with hv.open_video(films / "a.mp4") as video:
        pictures = video.frames(range(32))
    for name in ("a", "deep/b"):
        (videos / name).mkdir(parents=True)
        for number, picture in enumerate(pictures, 1):
            Image.fromarray(picture).save(videos / name / f"img_{number:05d}.png")
            Image.fromarray(picture).save(videos / name / f"flow_{number:05d}.png")
    (videos / "other").mkdir()
    (videos / "other" / "flow_00001.png").write_bytes(b"")
    backend = Answerer(str(folder)).backend()
    assert find_videos([str(videos)], backend) == [videos / "a", videos / "deep" / "b"]
    assert find_videos([str(videos / "a")], backend) == [videos / "a"]
    extracting = load_config(folder / "config.yaml", [f"features.input={videos}"])
    assert [record.path for record in read_input(extracting).records] == [
        str(videos / "a"),
        str(videos / "deep" / "b"),
    ]
    globbed = load_config(folder / "config.yaml", [f"features.input={videos}/[ab]"])
    assert [record.path for record in read_input(globbed).records] == [str(videos / "a")]
    with pytest.raises(
        ConfigError,
        match=r"/\*.mp4: matches no folder of frames; quote the glob, and check it with ls",
    ):
        read_input(load_config(folder / "config.yaml", [f"features.input={films}/*.mp4"]))
    for path, words in (
        (
            videos / "other",
            r"holds no frames, as the run reads them \(data.frame_template=img_%05d.png\)",
        ),
        (
            films / "a.mp4",
            "is a file, and data.decoder=frames, which the run has, reads folders of frames; take the video",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            find_videos([str(path)], backend)
    with pytest.raises(ConfigError, match=r"holds no config.yaml; give the out_dir of a run"):
        Answerer(str(films)).backend()
    done = tool("predict.py", str(videos / "a"), "--run", str(folder), "--topk", "1")
    (best,) = hv.predict(run, films / "a.mp4", topk=1)  # the same frames, so the same answer
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{videos / 'a'}  0.00–2.00 s  {best.label} {best.probability:.1%}\n"


def test_one_answer_a_video_is_the_tests(run: Path, films: Path, tmp_path: Path) -> None:
    csv_file, json_file = tmp_path / "answers.csv", tmp_path / "answers.json"
    assert (
        answered(find_videos([str(films)]), run, csv_file=str(csv_file), json_file=str(json_file))
        == 0
    )
    rows = json.loads(json_file.read_text())
    assert [(Path(row["path"]).name, row["start_seconds"], row["end_seconds"]) for row in rows] == [
        ("a.mp4", 0, 2),
        ("b.mp4", 0, 1.5),
    ]
    for row in rows:
        expected = hv.predict(run, row["path"], topk=2)
        assert [item["label"] for item in row["answers"]] == [item.label for item in expected]
        assert row["answers"][0]["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
    with csv_file.open() as file:
        lines = list(csv.DictReader(file))
    assert (
        len(lines) == 4
        and lines[1]["rank"] == "2"
        and lines[0]["label"] == rows[0]["answers"][0]["label"]
    )


def test_a_stretch_is_what_the_test_sees_of_that_stretch(run: Path, films: Path) -> None:
    loaded = hv.load(run)
    found = list(
        predict_windows(loaded, films / "a.mp4", step=0.5, topk=3)
    )  # the clip's own length: 16 frames, 1 s
    assert [(part.start_seconds, part.end_seconds) for part in found] == [
        (0, 1),
        (0.5, 1.5),
        (1, 2),
    ]
    with hv.open_video(films / "a.mp4") as video, torch.inference_mode():
        views = loaded.transform(video.frames(range(8, 24)))
        shares = loaded.model(views).softmax(dim=1).mean(dim=0)
    assert dict(found[1].answers) == pytest.approx(
        {NAMES[k]: float(shares[k]) for k in range(3)}, abs=1e-6
    )
    with pytest.raises(ConfigError, match=r"--step 0: must be above 0 seconds, and finite"):
        next(predict_windows(loaded, films / "a.mp4", step=0))
    with pytest.raises(ConfigError, match=r"--window inf: must be above 0 seconds, and finite"):
        next(predict_windows(loaded, films / "a.mp4", window=float("inf")))
    segments = replace(loaded.config, clip=replace(loaded.config.clip, sampling="segments"))
    with pytest.raises(
        ConfigError, match="spreads its frames over any length: say how long with --window"
    ):
        next(predict_windows(replace(loaded, config=segments), films / "a.mp4"))
    halves = list(predict_windows(replace(loaded, config=segments), films / "a.mp4", window=1))
    assert [(part.start_seconds, part.end_seconds) for part in halves] == [(0, 1), (1, 2)]


def test_every_mode_computes_in_the_precision_of_the_runs_test(run: Path, films: Path) -> None:
    loaded, film = hv.load(run), films / "a.mp4"
    config = loaded.config
    half = replace(loaded, config=replace(config, test=replace(config.test, precision="bf16")))
    with hv.open_video(film) as video:
        seen = list(zip(video.times, video.frames(range(len(video.times)))))

    def answers(one: LoadedRun) -> Iterator[dict[str, float]]:
        yield {item.label: item.probability for item in hv.predict(one, film, topk=3)}
        yield from (dict(part.answers) for part in predict_windows(one, film, topk=3))
        yield from (dict(part.answers) for part in predict_live(one, iter(seen), window=1, topk=3))

    pairs = list(zip(answers(loaded), answers(half), strict=True))
    assert len(pairs) == 1 + 2 + 1
    for exact, rounded in pairs:
        assert rounded != exact and rounded == pytest.approx(exact, abs=2e-2)
        assert sum(rounded.values()) == pytest.approx(1, abs=1e-6)


def test_a_stream_that_begins_a_hair_before_zero_is_not_printed_with_a_sign(
    run: Path, films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [hv_runs.Prediction("up", 1.0, ((-0.0003, 2.0),))]
    monkeypatch.setattr(hv_runs, "predict", lambda *_: found)
    assert answered([films / "a.mp4"], run) == 0
    assert "  0.00–2.00 s  up 100.0%" in capsys.readouterr().out


def test_what_cannot_be_read_is_one_line_and_an_exit_code(
    run: Path, films: Path, caplog: Any, tmp_path: Path
) -> None:
    bad = films / "notes.txt"
    assert answered([films / "a.mp4", bad], run) == 3
    assert [line for line in caplog.messages if line.startswith("error: ")] == [caplog.messages[-2]]
    assert (
        str(bad) in caplog.messages[-2] and caplog.messages[-1] == "1 of 2 videos could not be read"
    )
    assert answered([bad], run) == 2
    with pytest.raises(
        ConfigError, match=r"/dev/full: cannot be written \(No space left on device\)"
    ):
        answered([films / "a.mp4"], run, csv_file="/dev/full")


def test_where_the_answers_go_is_looked_at_before_any_is_computed(
    tmp_path: Path, monkeypatch: Any
) -> None:
    missing, no_run = tmp_path / "no" / "a.csv", tmp_path / "no_run"
    for name in ("csv_file", "json_file"):
        with pytest.raises(
            ConfigError,
            match=rf"a.csv: cannot be written, there is no folder {missing.parent}; make it",
        ):
            answered([], no_run, **{name: str(missing)})
    with pytest.raises(ConfigError, match="cannot be written, is a folder; name a file"):
        answered([], no_run, csv_file=str(tmp_path))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"b.csv: cannot be written; check the permissions"):
        answered([], no_run, csv_file=str(tmp_path / "b.csv"))


def test_the_tool(run: Path, films: Path, tool: Any) -> None:
    done = tool(
        "predict.py", str(films / "a.mp4"), "--run", str(run), "--window", "clip", "--topk", "1"
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"({films}/a.mp4  \d\.\d\d–\d\.\d\d s  (to the (right|left)|up) \d+\.\d%\n){{2}}",
        done.stdout,
    )
    for arguments, words in (
        (["--step", "1"], "--step 1.0: goes with --window; give both, or neither"),
        (["--window", "long"], "--window long: must be seconds above 0, or clip"),
        (["--window", "inf"], "--window inf: must be seconds above 0, or clip"),
        (["--window", "clip", "--step", "nan"], "--step nan: must be seconds above 0"),
        (["--topk", "0"], "--topk 0: must be 1 or more"),
    ):
        done = tool("predict.py", str(films / "a.mp4"), "--run", str(run), *arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_several_labels_have_probabilities_of_their_own(run: Path, films: Path) -> None:
    loaded = replace(hv.load(run), multi_label=True)
    logits = torch.tensor([[0.0, 2.0, -2.0], [0.0, 2.0, -2.0]])
    found = dict(named_answers(loaded, logits, 3))
    assert found == pytest.approx({"to the right": 0.5, "to the left": 0.8807971, "up": 0.1192029})


def test_a_damaged_checkpoint_is_told(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder, symlinks=True)
    meta = folder / "checkpoints/best/meta.json"
    for content in (meta.read_text()[:40], "[]", "{}"):
        meta.write_text(content)
        with pytest.raises(
            CheckpointError,
            match=r"checkpoints/best: its meta.json is damaged \(.*; load the run's last",
        ):
            hv.load(folder)


def test_masked_pretraining_answers_nothing(films: Path, tmp_path: Path) -> None:
    save_config(load_config(ROOT / "configs/motion_hiera_micro_mae.yaml"), tmp_path / "config.yaml")
    model = hv.create_model("mae_hiera_micro_16x32")
    meta = {"model": {"num_classes": None}, "class_names": None}
    CheckpointStore(tmp_path / "checkpoints", keep=1).save(
        1, model.state_dict(), {}, meta, best=True
    )
    loaded, words = (
        hv.load(tmp_path),
        "masked pre-training has no classes to answer with; fine-tune from it first",
    )
    with pytest.raises(ConfigError, match=words):
        hv.predict(loaded, films / "a.mp4")
    with pytest.raises(ConfigError, match=words):
        next(predict_windows(loaded, films / "a.mp4", window=1))


def test_a_model_may_have_more_classes_than_names(run: Path) -> None:
    loaded = replace(hv.load(run), class_names=("to the right", "to the left"))
    answers = named_answers(loaded, torch.tensor([[0.0, 1.0, 2.0]]), 3)
    assert [name for name, _ in answers] == ["2", "to the left", "to the right"]


def test_a_model_or_checkpoint_that_is_none_is_told(run: Path, films: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run is a Hiera; give the run's folder, or what hv.load made of it"
    ):
        hv.predict(hv.load(run).model, films / "a.mp4")  # type: ignore[arg-type]
    with pytest.raises(
        CheckpointError,
        match=r"the run has no 'final' checkpoint yet; 'last' is saved while training",
    ):
        hv.load(run, which="final")  # type: ignore[arg-type]


def test_a_run_without_validation_answers_by_its_last_checkpoint(
    run: Path, films: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder, symlinks=True)
    (folder / "checkpoints" / "best").unlink()
    assert hv.predict(folder, films / "a.mp4") == hv.predict(run, films / "a.mp4")
    with pytest.raises(CheckpointError, match="the run has no 'best' checkpoint yet"):
        hv.load(folder, "best")


def test_weights_answer_without_a_run(
    answering_model: Callable[[], Hiera],
    run: Path,
    films: Path,
    tmp_path: Path,
    tool: Any,
    caplog: Any,
) -> None:
    """As a file from elsewhere: only the tensors; and as a folder that knows its classes."""
    model, film = answering_model(), films / "a.mp4"
    named = hv.save_pretrained(model, tmp_path / "named", class_names=NAMES)
    torch.save({"model_state": model.state_dict()}, tmp_path / "bare.pth")
    done = tool(
        *(
            "predict.py",
            str(film),
            "--model",
            "hiera_micro_16x32",
            "--pretrained",
            str(named),
            "--topk",
            "3",
        ),
        *("--json", str(tmp_path / "answers.json")),
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "answers.json").read_text())
    loaded = hv.load(named, model="hiera_micro_16x32")
    assert loaded.class_names == tuple(NAMES) and (
        loaded.config.test.clips,
        loaded.config.test.crops,
    ) == (5, 3)
    expected = hv.predict(loaded, film, topk=3)
    assert [item["label"] for item in row["answers"]] == [item.label for item in expected]
    assert row["answers"][0]["probability"] == pytest.approx(expected[0].probability, abs=1e-6)
    bare = hv.predict(hv.load(tmp_path / "bare.pth", model="hiera_micro_16x32"), film, topk=3)
    assert [NAMES[int(item.label)] for item in bare] == [item.label for item in expected]
    kinetics = hv.create_model("hiera_micro_16x32", num_classes=400)
    torch.save(kinetics.state_dict(), tmp_path / "k400.pth")
    with caplog.at_level("INFO"):
        names = hv.load(tmp_path / "k400.pth", model="hiera_micro_16x32").class_names
    assert names is not None and (len(names), names[0], names[399]) == (400, "abseiling", "zumba")
    assert "its 400 classes have no names; they are taken for Kinetics-400's" in caplog.text
    torch.save(hv.create_model("mae_hiera_micro_16x32").state_dict(), tmp_path / "mae.pth")
    with pytest.raises(
        ConfigError, match=r"mae.pth: has no classifier's head, and so no classes to answer with"
    ):
        hv.load(tmp_path / "mae.pth", model="hiera_micro_16x32")
    for arguments, words in (
        (
            ["--model", "hiera_micro_16x32"],
            "--model and --pretrained go together; for a run of your own, --run alone",
        ),
        (
            ["--model", "hiera_bse_16x224", "--pretrained", "x"],
            "unknown model; did you mean hiera_base_16x224",
        ),
        (
            ["--model", "hiera_base_224", "--pretrained", str(named)],
            "hiera_base_224 takes (height, width)",
        ),
    ):
        done = tool("predict.py", str(film), *arguments)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )
