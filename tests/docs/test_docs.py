"""What the documents show is run, and what they name exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.config.load import flatten_config, load_config
from hiera_video.runtime.log import read_metrics
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def snippets() -> list[str]:
    return re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), flags=re.DOTALL
    )


def test_the_new_task_trains_and_goes_on(tmp_path: Path) -> None:
    videos, run = tmp_path / "videos", tmp_path / "run"  # a flat folder: no labels
    videos.mkdir()
    for number in range(8):
        frames = np.full((18, 40, 48, 3), 60 + number, np.uint8)
        for time in range(18):
            frames[time, 5:25, 2 * time : 2 * time + 10] = 250
        write_video(videos / f"{number}.mp4", frames, fps=12)
    (tmp_path / "arrow.py").write_text(snippets()[0])
    command = [
        *(
            sys.executable,
            str(tmp_path / "arrow.py"),
            f"data.train={videos}",
            "data.val=null",
            f"out_dir={run}",
        ),
        *(
            "data.workers=0",
            "train.epochs=2",
            "train.batch_size=4",
            "train.log_every=1",
            "model.drop_path_rate=0.1",
        ),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3] and all(
        0 <= row["top1"] <= 1 for row in rows
    )
    assert (run / "checkpoints" / "last" / "meta.json").is_file()


def test_the_new_evaluator_answers() -> None:
    scope: dict[str, type] = {"torch": torch}  # type: ignore[dict-item]
    exec(snippets()[1], scope)
    evaluator = scope["Share"](torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 0.0], [1.0, 0.0]]))
    assert evaluator(nn.Identity()) == {"forwards": 0.75}
    assert evaluator.score in evaluator(nn.Identity()) and evaluator.higher_is_better


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_file_and_key_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / file).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert not name or name in defined, f"{file}::{name}"
    keys = set(flatten_config(load_config(ROOT / "configs" / "motion_hiera_micro.yaml")))
    sections = {key.partition(".")[0] for key in keys if "." in key}
    for key in re.findall(r"`([a-z]+\.[a-z_]+)(?:=[^`]*)?`", text):
        assert key.partition(".")[0] not in sections or key in keys, key
