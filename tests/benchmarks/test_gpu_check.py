"""The GPU check runs from end to end on a CPU, so that no minute of a GPU is lost to a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_whole_check_at_micro_size(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "benchmarks/gpu_check.py", "--device", "cpu", "--size", "micro"),
        *("--out", str(tmp_path), "--work", str(tmp_path / "work"), "--minutes", "30"),
        *("--tests", "masks_are_the_same"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads((tmp_path / "gpu_check.json").read_text())["cases"]
    assert [name for name, case in cases.items() if "error" in case] == []
    assert list(cases) == [
        "tests",
        "ceilings",
        "inference/micro/2+switches",
        "fine_tune/micro/2",
        "mae/micro/2+switches",
        "profile/mae/micro/2/ours",
        "engine/micro",
        "engine/micro_mae",
        "trainer/mae/micro/pyav/model",
        "demo",
    ]
    tests = cases["tests"]
    assert (tests["passed"], tests["failed"], tests["exit_code"]) == (1, 0, 0)
    assert cases["ceilings"]["matmul_tflops"] > 0
    for name in ("inference/micro/2+switches", "fine_tune/micro/2", "mae/micro/2+switches"):
        measured = cases[name]["candidates"]
        assert {"ours", "reference"} <= measured.keys()
        assert measured["reference"]["difference"] < 0.05
    assert cases["demo"]["evaluated"] == 8
    assert 0 <= cases["trainer/mae/micro/pyav/model"]["data_wait_share"] <= 1
    assert done.stdout.count("\n") < 80 and "tests: 1 passed, 0 failed, 0 skipped" in done.stdout


def test_cases_that_are_there_or_do_not_fit_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_check

    ran = []

    def jobs(*_: Any) -> list[Any]:
        def job(name: str, seconds: float) -> Any:
            def run(left: float) -> dict[str, Any]:
                ran.append(name)
                if name == "broken":
                    raise ValueError("why it failed")
                return {"value": 1}

            return gpu_check.Job(name, seconds, run)

        return [job("a/1", 1), job("broken", 1), job("long", 100), job("b/1", 1)]

    monkeypatch.setattr(gpu_check, "make_jobs", jobs)
    monkeypatch.setattr(gpu_check.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "describe_device", lambda _: {"name": "a GPU"})
    monkeypatch.setattr(gpu_check, "is_usable", lambda _: True)
    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(monotonic=lambda: 0.0))
    arguments = ["--out", str(tmp_path), "--minutes", "1"]
    assert gpu_check.main([*arguments, "--only", "a,broken,long"]) == 1
    cases = json.loads((tmp_path / "gpu_check.json").read_text())["cases"]
    assert ran == ["a/1", "broken"] and list(cases) == ["a/1", "broken", "long"]
    assert cases["broken"]["error"]["message"] == "why it failed"
    assert cases["long"] == {"skipped": "60 s were left"}
    out = capsys.readouterr().out
    assert "broken: ERROR ValueError: why it failed" in out
    assert gpu_check.main([*arguments, "--resume"]) == 1
    assert ran == ["a/1", "broken", "broken", "b/1"]
    assert gpu_check.main([*arguments, "--resume", "--keep-errors"]) == 1
    assert ran == ["a/1", "broken", "broken", "b/1"]


def test_a_lost_cuda_context_starts_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_check

    class Restarted(Exception):
        pass

    commands: list[list[str]] = []

    def execute(program: str, command: list[str]) -> None:
        commands.append(command)
        # a case that ends the process without an exception is marked beforehand
        cases = json.loads((tmp_path / "gpu_check.json").read_text())["cases"]
        assert cases["one"]["value"] == 1 and "two" not in cases
        raise Restarted

    def run(left: float) -> dict[str, Any]:
        cases = json.loads((tmp_path / "gpu_check.json").read_text())["cases"]
        assert cases["one"]["error"]["message"] == "the process ended within this case"
        return {"value": 1}

    jobs = [gpu_check.Job("one", 1, run), gpu_check.Job("two", 1, run)]
    monkeypatch.setattr(gpu_check, "make_jobs", lambda *_: jobs)
    monkeypatch.setattr(gpu_check.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "describe_device", lambda _: {"name": "a GPU"})
    monkeypatch.setattr(gpu_check, "is_usable", lambda _: False)
    monkeypatch.setattr(gpu_check.os, "execv", execute)
    with pytest.raises(Restarted):
        gpu_check.main(["--out", str(tmp_path), "--minutes", "1"])
    (command,) = commands
    assert command[0] == sys.executable and command[1].endswith("gpu_check.py")
    assert command[2:6] == ["--out", str(tmp_path), "--minutes", "1"]
    assert command[6] == "--work" and Path(command[7]).is_dir()
    assert command[8:11] == ["--resume", "--keep-errors", "--minutes"] and float(command[11]) <= 1


def test_reports_of_pytest_are_read(tmp_path: Path) -> None:
    from gpu_tests import read_junit

    test = tmp_path / "test_three.py"
    test.write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'what is wrong'\n"
        "def test_skipped(): pytest.skip('the reason')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={tmp_path / 'junit.xml'}"]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    subprocess.run([*command, str(test)], cwd=tmp_path, env=environment, capture_output=True)
    found = read_junit(tmp_path / "junit.xml")
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    assert found["skips"] == {"test_three::test_skipped": "the reason"}
    assert "what is wrong" in " ".join(found["failures"]["test_three::test_bad"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_tests_are_counted_and_run_again(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_tests
    from gpu_check import has_failed, has_result
    from gpu_timing import Setup

    if workers:
        pytest.importorskip("xdist")
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_four.py").write_text(
        "import time, pytest\n"
        "pytestmark = pytest.mark.gpu\n"
        "@pytest.mark.parametrize('name', ['a b'])\n"
        "def test_good(name): pass\n"
        "def test_bad(): assert False\n"
        "def test_skipped(): pytest.skip('the reason')\n"
        "def test_long(): time.sleep(600)\n"
        "def test_longer(): time.sleep(600)\n"
    )
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    monkeypatch.setattr("gpu_programs.ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", f"-n {workers}" if workers else "")
    setup = Setup(device=torch.device("cpu"), micro=True, rounds=1, round_seconds=0.01)
    found = gpu_tests.run_tests(setup, tmp_path, timeout=20)
    assert [found[name] for name in ("passed", "failed", "skipped", "not_run")] == [1, 1, 1, 2]
    assert [name.partition("::")[2] for name in found["failures"]] == ["test_bad"]
    assert has_failed(found) and not has_result(found, keep_errors=False)
    assert not has_failed({"passed": 3, "failed": 0})
    with pytest.raises(gpu_tests.ProgramError, match="pytest: exit code 5"):
        gpu_tests.run_tests(setup, tmp_path, timeout=60, keyword="no_such_test")


def test_results_of_another_gpu_are_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpu_check import read, write

    path = tmp_path / "gpu_check.json"
    assert read(path, {"name": "A"}) == {"cases": {}}
    write(path, {"device": {"name": "NVIDIA A"}, "cases": {"ceilings": {"matmul_tflops": 1}}})
    assert read(path, {"name": "NVIDIA A"})["cases"] == {"ceilings": {"matmul_tflops": 1}}
    assert read(path, {"name": "NVIDIA B"}) == {"cases": {}}
    (kept,) = tmp_path.iterdir()
    assert (
        kept.name.startswith("gpu_check_NVIDIA_A_torch_2_") and str(kept) in capsys.readouterr().out
    )
    assert json.loads(kept.read_text())["cases"] == {"ceilings": {"matmul_tflops": 1}}


def test_cases_without_a_result_are_named_in_the_table_and_the_page() -> None:
    from gpu_page import section
    from gpu_table import table

    cases = {
        "tests": {"skipped": "10 s were left"},
        "mae/base/32": {"error": {"type": "ValueError", "message": "why"}},
        "mae/base/32+compile": {"skipped": "10 s were left"},
    }
    result = {"device": {"name": "H"}, "cases": cases}
    assert "tests: skipped: 10 s were left\nmae/base/32: ERROR ValueError: why" in table(result)
    partly = {"passed": 72, "failed": 0, "skipped": 1, "not_run": 5}
    assert "72 passed, 0 failed, 1 skipped, 5 not run" in table(
        {**result, "cases": {"tests": partly}}
    )
    assert "Tests that need a GPU: not run." in " ".join(section({"cases": cases}).split())


def test_the_page_shows_what_is_measured_and_what_is_not() -> None:
    from gpu_page import section

    def candidate(rate: float) -> dict[str, Any]:
        return {"clips_per_second": rate, "peak_gb": 1.5, "seconds": {"median": 1 / rate}}

    empty = section({"cases": {}})
    assert "Not measured yet. `make gpu` tests and measures" in empty
    assert "| base, inference | 32 | not measured | – | – | – | – | – |" in empty
    candidates = {"ours": candidate(900), "reference": candidate(250), "optim": candidate(600)}
    case = {"candidates": candidates, "flops_per_clip": 2e11}
    faster = {
        "candidates": {
            "ours+graph": candidate(1000),
            "ours+sdpa": candidate(5000),
            "ours+compile+graph": candidate(1200),
        },
        "flops_per_clip": 2e11,
    }
    cases = {
        "tests": {"passed": 70, "failed": 0, "skipped": 1, "took": 9},
        "ceilings": {
            "matmul_tflops": 800.0,
            "copy_gb_per_second": 3000,
            "pinned_gb_per_second": 50,
            "pageable_gb_per_second": 10,
        },
        "inference/base/1": {"candidates": candidates, "flops_per_clip": 2e11},
        "inference/base/32": case,
        "inference/base/32+compile": faster,
        "trainer/mae/base/pyav/model": {
            "workers": 14,
            "clips_per_second": 99.6,
            "data_wait_share": 0.25,
        },
        "mae/base/32": {"candidates": {"ours": candidate(10)}, "flops_per_clip": 2e11},
        "mae/base/32+compile": {
            "candidates": {"ours": candidate(10), "ours+graph": candidate(20)},
            "flops_per_clip": 2e11,
        },
        "engine/base": {"bytes_share": 0.98},
        "demo": {"total_seconds": 59.6, "top1": 94.4, "evaluated": 320},
    }
    text = section(
        {
            "device": {"name": "H", "cuda": "13.0"},
            "date": "2026-01-02",
            "versions": {"torch": "2.11"},
            "machine": {"cores": 16},
            "runs": {"1": {"commit": "abc1234"}, "2": {"commit": "def5678"}},
            "cases": cases,
        }
    )
    assert "| base, inference | 32 | 1200 | 30% | 1.5 | 3.60 | 1.50 | compiled, graph |" in text
    assert "| base, pre-training step, pyav, `augment.device=model` | 14 | 100 | 25% |" in text
    words = " ".join(text.split())
    assert "bare step's rate: 98.0%." in words and "60 s, 94.4 % of 320." in words
    assert "Tests that need a GPU: 70 passed, 1 skipped." in words
    assert "| base, pre-training step | 32 | 10 | 0% | 1.5 | – | – | eager |" in text
    assert "takes 50 ms instead of 100 ms at 32 clips" in words
    assert "A matrix product reaches 800 TFLOP/s" in words
    assert "16 CPU cores, runs of the commits abc1234, def5678. A matrix" in words
    assert "Without a graph, the ratios at one clip are 3.60 × and 1.50 × (base). Tests" in words
    assert "| large, inference | 32 | not measured | – | – | – | – | – |" in text
