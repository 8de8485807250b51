"""A paired comparison, as literal numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from hiera_video.errors import ConfigError
from hiera_video.eval.compare import compare, describe, mcnemar

LABELS = ["jump", "jump", "run", "run", "run", "sit", "sit", "sit", "sit", "sit"]


def results(folder: Path, answers: list[str], labels: list[str] = LABELS, **facts: float) -> Path:
    folder.mkdir()
    lines = [
        f"{row},/x/{row}.mp4,{label},{answer}"
        for row, (label, answer) in enumerate(zip(labels, answers))
    ]
    (folder / "predictions.csv").write_text("\n".join(["row,path,label_name,answer_name", *lines]))
    (folder / "results.json").write_text(json.dumps(facts))
    return folder / "results.json"


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (3, 1), (1, 3), (10, 10), (2, 30), (800, 910)]
)
def test_mcnemar_is_scipys_binomial(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_what_changed(tmp_path: Path) -> None:
    a = results(
        tmp_path / "a", ["jump", "run", "run", "run", "run", "sit", "sit", "sit", "sit", "jump"]
    )
    b = results(tmp_path / "b", ["jump", "jump", "run", "run", "sit", "sit", "sit", "sit", "sit"])
    found = compare(a, b)
    assert (found["videos"], found["left_out"]) == (9, 1)
    assert found["top1"] == pytest.approx([800 / 9, 800 / 9]) and found["difference"] == 0
    assert (found["only_first"], found["only_second"], found["p_value"]) == (1, 1, 1)
    low, high = found["interval"]
    assert low < 0 < high and low == pytest.approx(-high, abs=12)
    assert found["classes"] == [
        {"name": "jump", "videos": 2, "change": 50},
        {"name": "run", "videos": 3, "change": pytest.approx(-100 / 3)},
    ]
    words = describe(found, "a.json", "b.json")
    assert (
        "B - A: +0.00 points of top-1" in words
        and "right in A alone 1, in B alone 1: McNemar p = 1" in words
    )
    assert (
        "1 videos were read in one of the two tests alone" in words
        and "+50.0  jump (2 videos)" in words
    )


def test_other_videos_and_other_files_are_refused(tmp_path: Path) -> None:
    a = results(tmp_path / "a", LABELS)
    other = results(tmp_path / "other", LABELS, ["sit", *LABELS[1:]])
    with pytest.raises(
        ConfigError, match=r"0.mp4 \(row 0\) is 'jump' in one and 'sit' in the other"
    ):
        compare(a, other)
    with pytest.raises(ConfigError, match="have no video in common; compare tests of one manifest"):
        compare(a, results(tmp_path / "none", []))
    with pytest.raises(ConfigError, match="is of several labels a video"):
        compare(a, results(tmp_path / "many", LABELS, mAP=50.0))
    with pytest.raises(ConfigError, match="give the results"):
        compare(a, tmp_path / "nowhere.json")
