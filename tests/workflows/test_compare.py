"""The page of `hiera-video test --compare … --page`: curves and pictures of the runs on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiera_video.cli.test import main
from hiera_video.errors import ConfigError


def make_run(folder: Path, answers: str, pretrained: Path | None) -> Path:
    folder.mkdir()
    rows = [f"{row},/x/{row}.mp4,a,{answer}" for row, answer in enumerate(answers)]
    (folder / "predictions.csv").write_text("\n".join(["row,path,label_name,answer_name", *rows]))
    (folder / "results.json").write_text('{"top1": 50}')
    metrics = [{"split": "train", "step": step, "loss": 1.0} for step in (0, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if pretrained:
        (folder / "config.yaml").write_text(
            f"model:\n  name: hiera_micro_16x32\n  pretrained: {pretrained}\n"
        )
    return folder / "results.json"


def test_page_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "mae" / "reconstructions"
    pictures.mkdir(parents=True)
    (pictures / "latest.png").write_bytes(b"\x89PNG")
    first = make_run(tmp_path / "scratch", "abbb", None)  # trained elsewhere: no config.yaml
    second = make_run(tmp_path / "tuned", "aaab", tmp_path / "mae")
    page = tmp_path / "page.html"
    assert main(["--compare", str(first), str(second), "--page", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A 25.00 (0.00 to ") and lines[1].startswith("B 75.00 (25.00 to ")
    text = page.read_text()
    assert "Masked pre-training of tuned" in text and "Masked pre-training of scratch" not in text
    assert "Training loss" in text


def test_a_page_needs_a_comparison() -> None:
    with pytest.raises(ConfigError, match=r"^--page x\.html: goes with --compare only$"):
        main(["--run", "runs/x", "--page", "x.html"])
