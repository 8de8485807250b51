"""`tools/benchmark.py`: help, loading stage by stage, and advice from the measurements."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from hiera_video.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of benchmarks/ by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_benchmark_help(tool: Any) -> None:
    done = tool("benchmark.py", "--help")
    assert done.returncode == 0 and "{model,train,mae,data}" in done.stdout
    assert "benchmarks/" not in done.stdout  # an installed package has no such folder to look into
    done = tool("benchmark.py", "speed")
    assert done.returncode == 2 and "invalid choice: 'speed'" in done.stderr


@pytest.mark.parametrize("subject", ["data", "mae"])
def test_help_of_a_subject_needs_no_torch(subject: str, launch: Any) -> None:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = launch("benchmark.py", subject, "--help", env=environment)
    assert done.returncode == 0 and "usage: hiera-video benchmark" in done.stdout, done.stderr
    assert not re.search(r"\| +torch$", done.stderr, flags=re.MULTILINE)
    assert not re.search(r"make bench|\.py\b|SPEED\.md", done.stdout)  # the repository's alone


def test_loading_is_measured_stage_by_stage(
    script: Any, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = script("data_stages").main
    common = [
        "--cfg",
        str(ROOT / "configs/motion_hiera_micro.yaml"),
        f"data.train={videos / 'train.csv'}",
    ]
    out = tmp_path / "out.json"
    assert (
        main([*common, "--clips", "6", "--demand", "50", "--json", str(out), "--workers", "0", "1"])
        == 0
    )
    found, shown = json.loads(out.read_text()), capsys.readouterr().out
    assert set(found["milliseconds"]) == {"open", "decode", "convert", "augment", "crop", "collate"}
    assert all(value > 0 for value in found["milliseconds"].values())
    assert set(found["clips_per_second"]) == set(found["waits"]) == {"0", "1"}
    assert found["versions"]["torch"] and found["machine"]["cores"]
    assert all(name in shown for name in (*found["milliseconds"], "workers", "model waits", "\n- "))
    with pytest.raises(ConfigError, match="--clips 0: must be above 0"):
        main([*common, "--clips", "0"])


MEASURED: dict[str, Any] = {
    "milliseconds": {
        "open": 1.0,
        "decode": 30.0,
        "convert": 9.0,
        "augment": 10.0,
        "crop": 8.0,
        "collate": 2.0,
    },
    "clips_per_second": {0: 16.0, 1: 16.0, 2: 30.0},
    "waits": {},
    "demand": None,
    "cores": 2,
    "reencoded": 0.5,
    "on_device": 54.0,
}


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        (
            {},
            [
                "decode-bound: reading takes 67% of a clip's time; re-encode with keyframe "
                "interval 32 (hiera-video prepare folder --reencode): reading ×2.0, whole clips "
                "×1.5",
                "a run on a GPU crops, flips, normalises and erases there (augment.device=auto): "
                "workers ×1.1",
                "throughput is highest with data.workers=2: 30.0 clips a second on 2 cores; "
                "compare it with your model's by --demand CLIPS_A_SECOND",
            ],
        ),
        (
            {
                "reencoded": 0.95,
                "on_device": None,
                "demand": 20.0,
                "waits": {0: 0.5, 1: 0.2, 2: 0.01},
            },
            [
                "decode-bound: reading takes 67% of a clip's time; re-encoding would "
                "not help (×1.1); raise data.workers instead",
                "the loader keeps up: with data.workers=2 a model of 20 clips a second waits 1.0% "
                "of its time",
            ],
        ),
        (
            {
                "reencoded": None,
                "on_device": 59.0,
                "demand": 50.0,
                "waits": {0: 0.7, 1: 0.7, 2: 0.4},
            },
            [
                "decode-bound: reading takes 67% of a clip's time; fewer pixels or more "
                "data.workers help",
                "the loader is too slow: a model of 50 clips a second waits 40% of its time with "
                "data.workers=2; set about data.workers=4, with a core for each (2 here)",
            ],
        ),
    ],
)
def test_advice(script: Any, changes: dict[str, Any], sentences: list[str]) -> None:
    module = script("data_advice")
    assert module.advice(module.LoadingTimes(**{**MEASURED, **changes})) == sentences


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (
            "augment",
            "augment-bound: RandAugment and colour jitter take 89% of a clip's time; only more "
            "data.workers help",
        ),
        (
            "crop",
            "crop-bound: crop, resize, normalise, erase and collate take 89% of a clip's time",
        ),
    ],
)
def test_advice_names_what_is_slow(script: Any, stage: str, words: str) -> None:
    module = script("data_advice")
    slow = {
        **MEASURED["milliseconds"],
        **dict.fromkeys(("crop", "collate", "augment"), 0.0),
        stage: 320.0,
    }
    found = module.advice(
        module.LoadingTimes(**{**MEASURED, "milliseconds": slow, "on_device": None})
    )
    assert found[0] == words
