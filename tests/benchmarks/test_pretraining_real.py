"""The measurement on real clips, end to end on tiny videos; finished arms are not run again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pretraining_real
import pytest

CLIPS = 8


@pytest.fixture
def clips(videos: Any, tmp_path: Path) -> Path:
    """Eight videos of two classes in two places."""
    rows = ["path,label,group"]
    for number in range(CLIPS):
        path = videos.write(f"{number}.mp4", 8)
        place = "gate" if number < CLIPS // 2 else "bridge"
        rows.append(f"{path.relative_to(tmp_path)},{('up', 'down')[number % 2]},{place}-0")
    (tmp_path / "groups.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.slow
def test_every_arm_of_a_tiny_set(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = clips / "real.json"
    command = [
        *("pretraining_real.py", str(clips), "--runs", str(clips / "runs"), "--out", str(out)),
        *("--frames", "4", "--size", "32", "--steps", "2", "--batch", "2", "--epochs", "1"),
        *("--seeds", "0", "1", "--workers", "1", "--one-pretraining"),
    ]
    monkeypatch.setattr(pretraining_real, "LARGE", CLIPS // 2)
    monkeypatch.setattr(sys, "argv", command)
    pretraining_real.main()
    kept = (clips / "runs" / "arms.jsonl").read_text()
    assert len(kept.splitlines()) == 2 * 2 * 4  # seeds, folds, arms
    pretraining_real.main()
    assert (clips / "runs" / "arms.jsonl").read_text() == kept
    assert len(list((clips / "runs").glob("*.pt"))) == 2 * 2  # folds, maskings
    result = json.loads(out.read_text())
    assert result["clips"] == CLIPS and result["places"] == ["bridge", "gate"]
    table = {row["method"]: row for row in result["splits"]["place"]}
    assert list(table) == [
        *("majority", "mean frame", "scratch, frozen", "scratch"),
        *("random, frozen", "random", "future, frozen", "future"),
    ]
    assert table["majority"]["top1"]["seeds"] == [50, 50]
    assert set(table["future"]["macro_f1"]["minus scratch"]) == {"seeds", "mean", "interval"}
    assert result["splits"]["random"] == []
