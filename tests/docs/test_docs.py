"""Train the task of docs/extending.md; check that links, files, flags and keys of pages exist."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hiera_video.config.load import flatten_config, load_config
from hiera_video.runtime.log import read_metrics
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/*", "benchmarks", "datasets/*")
    for path in ROOT.glob(f"{folder}/*.md")
)
MODULES = {"train_net": "train", "test_net": "test", "extract_features": "extract"}
"""Scripts in tools/ whose module in `hiera_video.cli` has another name."""
ANY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def extending_snippets() -> list[str]:
    page = (ROOT / "docs" / "extending.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


@pytest.mark.slow
def test_the_new_task_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, run = tmp_path / "videos", tmp_path / "runs/arrow"
    for number in range(8):  # the list names three classes, the task has two
        frames = np.full((18, 40, 48, 3), 60 + number, np.uint8)
        for time in range(18):
            frames[time, 5:25, 2 * time : 2 * time + 10] = 250
        folder = videos / ("jump", "run", "walk")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{number}.mp4", frames, fps=12)
    script = tmp_path / "arrow.py"
    script.write_text(extending_snippets()[0])
    overrides = [
        f"data.train={videos}",
        "data.val=null",
        f"out_dir={run}",
        "data.workers=0",
        "train.epochs=2",
        "train.batch_size=4",
        "train.log_every=1",
        "model.drop_path_rate=0.1",
    ]
    command = [sys.executable, str(script), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(0 <= row["top1"] <= 1 for row in rows)
    (videos / "jump/0.mp4").rename(tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    exec(extending_snippets()[1], {})
    labels = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(labels) == ["0", "1"]


def test_the_new_evaluator_returns_its_score() -> None:
    scope: dict[str, type] = {"torch": torch}  # type: ignore[dict-item]
    exec(extending_snippets()[2], scope)
    evaluator = scope["Share"](torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 0.0], [1.0, 0.0]]))
    assert evaluator(nn.Identity()) == {"forwards": 0.75}
    assert evaluator.score in evaluator(nn.Identity()) and evaluator.higher_is_better


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@ANY_PAGE
def test_links_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@ANY_PAGE
def test_named_files_and_keys_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(
        r"\b(?:tools|configs|benchmarks|tests)/[\w/]+\.(?:py|yaml|json)\b", text
    ):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"`([\w/]+/test_\w+\.py)`", text):
        assert (ROOT / name).is_file() or (ROOT / "tests" / name).is_file(), name
    for target in re.findall(r"`make ([\w-]+)`", text):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
    for key in re.findall(r"`([a-z]+\.(?!py`|json`|csv`)[a-z_]+)(?:=[^`]*)?`", text):
        module = ROOT / "hiera_video" / key.replace(".", "/")
        if key.partition(".")[0] in sections() and page.name != "CHANGELOG.md":
            assert key in keys() or module.with_suffix(".py").is_file() or module.is_dir(), key


@ANY_PAGE
def test_commands_parse(page: Path) -> None:
    for tool, arguments in commands(page.read_text()):
        subject = arguments[:1] if tool == "benchmark" else []
        for argument in arguments:
            if argument.startswith("--"):
                known = flags(tool, *subject)
                assert argument.partition("=")[0] in known, f"{tool}.py {argument}"
            elif re.match(r"[a-z]+\.[a-z_]+=", argument):
                assert argument.partition("=")[0] in keys(), f"{tool}.py {argument}"


def test_times_of_the_tutorial_are_the_measured_ones() -> None:
    result = json.loads((ROOT / "benchmarks/results/first_steps.json").read_text())
    page = (ROOT / "docs/tutorial.md").read_text()
    rows = re.findall(r"^\| `([\w .-]+)`.* \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    measured = {row["command"]: row["seconds"] for row in result["commands"]}
    assert len(rows) == 7
    for command, seconds in rows:
        (found,) = [value for typed, value in measured.items() if typed.startswith(command)]
        assert found == float(seconds), command
    assert all(row["exit"] == 0 for row in result["commands"])


def test_faults_of_the_reliability_page_have_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    data_faults = import_module("data_faults")
    source = "".join((ROOT / name).read_text() for name in data_faults.FILES)
    for prefixes, _ in data_faults.FAULTS.values():
        assert all(f"def {prefix}" in source for prefix in prefixes), prefixes


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the tool and the arguments of every command in a page's code blocks."""
    for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"tools/(\w+)\.py(.*)", line):
                yield found[1], shlex.split(found[2], comments=True)


@cache
def flags(tool: str, *subject: str) -> set[str]:
    """Return the flags in a tool's help."""
    module = import_module(f"hiera_video.cli.{MODULES.get(tool, tool)}")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        module.main([*subject, "--help"])
    return set(re.findall(r"--[\w-]+", shown.getvalue()))


@cache
def keys() -> set[str]:
    return set(flatten_config(load_config(ROOT / "configs" / "motion_hiera_micro.yaml")))


def sections() -> set[str]:
    return {key.partition(".")[0] for key in keys() if "." in key}
