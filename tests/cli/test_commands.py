"""The tools as a user starts them: what they leave behind, and one clear line for each mistake."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiera_video.config.load import load_config
from hiera_video.runtime.log import read_metrics
from hiera_video.workflows.build import manifest_of
from hiera_video.workflows.train import rehearse

CONFIG = "configs/motion_hiera_micro.yaml"


@pytest.fixture(scope="module")
def trained(videos: Path, tmp_path_factory: pytest.TempPathFactory, tool: Any) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    done = tool(
        *(
            "train_net.py",
            "--cfg",
            CONFIG,
            f"data.train={videos / 'train.csv'}",
            f"data.val={videos / 'val.csv'}",
        ),
        *(f"out_dir={run}", "train.epochs=1", "train.batch_size=4", "data.workers=2"),
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1 step 3/3" in done.stderr and "epoch 1 validation: top1 " in done.stderr
    return run


def test_a_run_leaves_what_it_promises(trained: Path) -> None:
    assert {"config.yaml", "env.json", "metrics.jsonl", "tensorboard", "checkpoints"} <= {
        p.name for p in trained.iterdir()
    }
    (validated,) = (row for row in read_metrics(trained / "metrics.jsonl") if row["split"] == "val")
    assert 0 < validated["loss"] < 10 and validated["of"] == 6
    meta = json.loads((trained / "checkpoints" / "best" / "meta.json").read_text())
    assert meta["class_names"] == ["to the right", "to the left"] and meta["step"] == 3


def test_multi_view_test_and_its_report(
    trained: Path, videos: Path, tool: Any, tmp_path: Path
) -> None:
    broken = tmp_path / "with_broken.csv"
    lines = (videos / "val.csv").read_text().splitlines()
    (tmp_path / "set").mkdir()
    for line in lines:
        shutil.copy(videos / line.split()[0], tmp_path / "set")
    (tmp_path / "set" / lines[2].split()[0]).write_bytes(b"no video at all")
    broken = tmp_path / "set" / "val.csv"
    broken.write_text("\n".join(lines))
    results = []
    for batch in (4, 4):
        done = tool(
            *(
                "test_net.py",
                "--cfg",
                CONFIG,
                f"data.test={broken}",
                f"out_dir={trained}",
                f"test.batch_size={batch}",
            ),
            *("test.clips=2", "test.crops=3", "data.workers=0"),
        )
        assert done.returncode == 3, done.stderr  # one of six is over the limit of 5 %
        assert "(evaluated 5 of 6)" in done.stderr and "over test.max_broken=0.05" in done.stderr
        results.append(
            ((trained / "results.json").read_bytes(), (trained / "predictions.npz").read_bytes())
        )
    assert results[0][0] == results[1][0]
    found = json.loads(results[0][0])
    assert found["evaluated"] == 5 and found["of"] == 6 and found["views"] == "2×3"
    assert [item["row"] for item in found["broken"]] == [2] and found["chosen_here"] is False
    arrays = np.load(trained / "predictions.npz")
    assert arrays["rows"].tolist() == [0, 1, 3, 4, 5] and arrays["logits"].shape == (5, 6, 2)
    with (trained / "predictions.csv").open() as file:
        answers = list(csv.DictReader(file))
    right = sum(row["label"] == row["answer"] for row in answers)
    assert found["top1"] == pytest.approx(100 * right / 5)
    page = (trained / "report.html").read_text()
    assert (
        "5</b>of 6 videos evaluated" in page and page.count("<figure") == 5 and "http" not in page
    )


def test_a_number_that_is_that_of_a_choice_is_called_so(
    trained: Path, videos: Path, tool: Any
) -> None:
    views = ("test.clips=1", "test.crops=1")
    common = (
        "test_net.py",
        "--cfg",
        CONFIG,
        f"data.val={videos / 'val.csv'}",
        f"out_dir={trained}",
        *views,
    )
    done = tool(*common)
    assert (
        done.returncode == 0
        and json.loads((trained / "results.json").read_text())["chosen_here"] is True
    )
    assert (
        "best of its run on this very list, so the number is that of a choice; without one: test.checkpo"
        in done.stderr
    )
    assert (
        "checkpoints/best (chosen as the best on this list)"
        in (trained / "report.html").read_text()
    )
    done = tool(*common, f"test.checkpoint={trained}")  # a run stands for its best
    assert (
        done.returncode == 0
        and json.loads((trained / "results.json").read_text())["chosen_here"] is True
    )
    done = tool(*common, f"test.checkpoint={trained / 'checkpoints' / 'last'}")
    assert (
        done.returncode == 0
        and json.loads((trained / "results.json").read_text())["chosen_here"] is False
    )


def test_dry_run_builds_the_real_thing_and_writes_nothing(
    videos: Path, tool: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):  # no labels, and far fewer videos than the recipe's batch
        shutil.copy(videos / f"train_{number}.mp4", folder)
    done = tool(
        *(
            "train_net.py",
            "--cfg",
            "configs/k400_hiera_t.yaml",
            "--dry-run",
            f"data.train={folder}",
            "clip.repeats=1",
        ),
        f"out_dir={tmp_path / 'run'}",
    )
    assert done.returncode == 0, done.stderr
    assert "warning: model.pretrained is not set" in done.stderr
    assert (
        "input [3, 16, 224, 224], 27.48 M parameters, 50.9" in done.stderr
        and "400 classes" in done.stderr
    )
    assert done.stderr.count("clips [1, 3, 16, 224, 224], loss ") == 2
    assert (
        "75 passes (75 effective epochs)" in done.stderr
        and "full recipe: 75 × 2 videos, " in done.stderr
    )
    assert not (tmp_path / "run").exists()


def test_dry_run_tells_of_a_validation_list_with_other_classes(
    videos: Path, tool: Any, tmp_path: Path
) -> None:
    (tmp_path / "val.csv").write_text((videos / "val.csv").read_text())
    (tmp_path / "labels.txt").write_text("to the right\nupwards\n")
    done = tool(
        *("train_net.py", "--cfg", CONFIG, "--dry-run", f"data.train={videos / 'train.csv'}"),
        *(f"data.val={tmp_path / 'val.csv'}", f"data.root={videos}"),
    )
    assert done.returncode == 2, done.stderr
    assert "names classes that" in done.stderr and "does not: 'upwards'" in done.stderr


def test_a_dry_run_shows_the_same_losses_each_time(
    overrides: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config, losses = load_config(CONFIG, overrides), []
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            rehearse(config, manifest_of(config, "train"))
        losses.append(re.findall(r"step \d: .* loss (\S+),", caplog.text))
    assert losses[0] == losses[1] and len(losses[0]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.train=nowhere/train.csv"], "nowhere/train.csv"),
        (["optim.lrr=1"], "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        (["model.input_size=[16,225,225]"], "the nearest that fit are"),
        (
            ["data.train=null"],
            "data.train is not set; name a manifest (`path label` a line) or a folder of videos",
        ),
        (
            ["model.pretrained=null"],
            "model.pretrained is not set: configs/motion_hiera_micro.yaml starts from pre-trained",
        ),
        (
            ["model.num_classes=1"],
            "names 2 classes, but model.num_classes=1; set model.num_classes=null",
        ),
        (["train.batch_size=100"], "train.batch_size=100"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, overrides: list[str], tool: Any, tmp_path: Path
) -> None:
    done = tool("train_net.py", "--cfg", CONFIG, *overrides, *arguments)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0] and "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_bad_lines_and_videos_are_named(
    overrides: list[str], videos: Path, tool: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        shutil.copy(videos / f"train_{number}.mp4", folder)
    manifest = folder / "train.csv"
    manifest.write_text("train_0.mp4 0\ntrain_1.mp4 minus-one\n")
    done = tool("train_net.py", "--cfg", CONFIG, *overrides, f"data.train={manifest}")
    assert done.returncode == 2 and f"{manifest}:2" in done.stderr and "minus-one" in done.stderr
    manifest.write_text("".join(f"train_{number}.mp4 {number % 2}\n" for number in range(4)))
    (folder / "train_2.mp4").write_bytes(b"no video")
    done = tool(
        "train_net.py",
        "--cfg",
        CONFIG,
        *overrides,
        f"data.train={manifest}",
        "data.on_broken=error",
    )
    assert done.returncode == 2 and "train_2.mp4" in done.stderr and "Traceback" not in done.stderr
    done = tool(
        "train_net.py", "--cfg", CONFIG, *overrides, f"data.train={manifest}", "train.epochs=1"
    )
    assert (
        done.returncode == 3
        and "train_2.mp4: cannot be read (container); another video takes its place" in done.stderr
    )
    words = "a broken video came 1 times in 1 passes over 4 videos, which is over data.max_broken=0.05; "
    assert (
        f"{words}tools/check_data.py names the broken ones: mend them, or raise data.max_broken"
        in done.stderr
    )
    command = (
        CONFIG,
        *overrides,
        f"data.train={manifest}",
        "train.epochs=1",
        "data.max_broken=0.5",
    )
    done = tool("train_net.py", "--cfg", *command)
    assert done.returncode == 0, done.stderr  # raised, the same command goes on


def test_testing_without_a_checkpoint_says_so(overrides: list[str], tool: Any) -> None:
    done = tool("test_net.py", "--cfg", CONFIG, *overrides)
    assert (
        done.returncode == 2
        and "no such folder of a run; it saves 'last', and with a data.val 'best'" in done.stderr
    )


@pytest.mark.parametrize("name", ["train_net.py", "test_net.py"])
def test_help(name: str, tool: Any) -> None:
    done = tool(name, "--help")
    assert done.returncode == 0 and "--cfg" in done.stdout and "--dry-run" in done.stdout


@pytest.mark.parametrize("name", ["train_net.py", "test_net.py", "launch_slurm.py"])
def test_options_may_stand_between_keys(name: str, tool: Any) -> None:
    done = tool(name, "--cfg", CONFIG, "optim.lr=1e-3", "--dry-run", "optim.lrr=1")
    assert done.returncode == 2 and "unknown key 'optim.lrr'" in done.stderr, done.stderr


def test_options_may_stand_between_videos(tool: Any) -> None:
    done = tool("predict.py", "a.mp4", "--run", "nowhere", "b.mp4")
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
