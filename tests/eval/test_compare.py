"""Paired comparison of two tests, as literal numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from hiera_video.errors import ConfigError
from hiera_video.eval.compare import ClassChange, compare, mcnemar

LABELS = ["jump", "jump", "run", "run", "run", "sit", "sit", "sit", "sit", "sit"]


def results(
    folder: Path, predictions: list[str], labels: list[str] = LABELS, metric: str = "top1"
) -> Path:
    folder.mkdir()
    lines = [
        f"{row},/x/{row}.mp4,{label},{prediction}"
        for row, (label, prediction) in enumerate(zip(labels, predictions))
    ]
    (folder / "predictions.csv").write_text("\n".join(["row,path,label_name,answer_name", *lines]))
    (folder / "results.json").write_text(json.dumps({metric: 50.0}))
    return folder / "results.json"


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (3, 1), (1, 3), (10, 10), (2, 30), (800, 910)]
)
def test_mcnemar_equals_scipys_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_comparison(tmp_path: Path) -> None:
    a = results(
        tmp_path / "a", ["jump", "run", "run", "run", "run", "sit", "sit", "sit", "sit", "jump"]
    )
    b = results(tmp_path / "b", ["jump", "jump", "run", "run", "sit", "sit", "sit", "sit", "sit"])
    found = compare(a, b)
    assert (found.videos, found.left_out) == (9, 1)
    assert found.top1 == pytest.approx((800 / 9, 800 / 9)) and found.difference == 0
    assert (found.only_first, found.only_second, found.p_value) == (1, 1, 1)
    low, high = found.interval
    assert low < 0 < high and low == pytest.approx(-high, abs=12)
    assert found.classes == [
        ClassChange(name="jump", videos=2, change=50),
        ClassChange(name="run", videos=3, change=pytest.approx(-100 / 3)),
    ]
    lines = found.describe("a.json", "b.json").splitlines()
    assert lines[:2] == ["A 88.89 (66.67 to 100.00)  a.json", "B 88.89 (66.67 to 100.00)  b.json"]
    assert lines[2].startswith("B - A: +0.00 points of top-1, 95 % interval -")
    assert lines[3] == "correct only in A: 1, only in B: 1; McNemar p = 1"
    assert lines[4] == "left out: 1 video that only one of the tests could read"
    assert lines[5] == "  +50.0  jump (2 videos)"


def test_tests_that_cannot_be_compared(tmp_path: Path) -> None:
    a = results(tmp_path / "a", LABELS)
    other = results(tmp_path / "other", LABELS, ["sit", *LABELS[1:]])
    with pytest.raises(
        ConfigError, match=r"0.mp4 \(row 0\) has label 'jump' in one and 'sit' in the other"
    ):
        compare(a, other)
    with pytest.raises(ConfigError, match="have no video in common; compare tests of one manifest"):
        compare(a, results(tmp_path / "none", []))
    with pytest.raises(ConfigError, match="has several labels a video; --compare needs top-1"):
        compare(a, results(tmp_path / "many", LABELS, metric="mAP"))
    with pytest.raises(ConfigError, match=r"give the results\.json that hiera-video test wrote"):
        compare(a, tmp_path / "nowhere.json")


NO_RESULT = r"cannot be compared \(it is not the result of a test\); give the results.json that"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", NO_RESULT),
        ("{}", NO_RESULT),
        ("3", NO_RESULT),
        ("{", "cannot be compared .JSONDecodeError: .*; give the results.json"),
        ('{"mAP": 1, "scored_boxes": 2}', "is the result of a test of boxes; --compare compares"),
        ('{"mAP": [1], "overlaps": []}', "is the result of a test of segments; --compare compares"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, content: str, words: str) -> None:
    file = results(tmp_path / "a", LABELS)
    file.write_text(content)
    with pytest.raises(ConfigError, match=f"results.json: {words}"):
        compare(file, file)


def test_results_without_their_predictions(tmp_path: Path) -> None:
    file = results(tmp_path / "a", LABELS)
    for content in ("x,y\n1,2\n", "row,path,label_name,answer_name\nx,a.mp4,sit,sit\n"):
        file.with_name("predictions.csv").write_text(content)
        with pytest.raises(ConfigError, match=r"cannot be compared .*; give the results.json"):
            compare(file, file)
