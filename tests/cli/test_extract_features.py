"""The tool as a user starts it: one process, torchrun, an array of jobs give the same bytes; mistakes are one line."""

from __future__ import annotations

import logging
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hiera_video.features.engine_slurm import ArrayJob
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.extract import check, resolve_config, read_input

ROOT = Path(__file__).parents[2]
CONFIG = "configs/motion_hiera_micro.yaml"
TOOL = "tools/extract_features.py"


@pytest.fixture(scope="module")
def common(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    torch.manual_seed(0)
    model = save_pretrained(
        create_model("hiera_micro_16x32"), tmp_path_factory.mktemp("model") / "model"
    )
    small = ["features.shard_videos=2", "features.batch_size=4", "data.workers=1"]
    return ["--cfg", CONFIG, f"model.pretrained={model}", f"input={videos / 'val.csv'}", *small]


def main(*arguments: str) -> int:
    """The tool in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", [TOOL, *arguments])
        runpy.run_path(str(ROOT / TOOL), run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="module")
def one_process(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "features"
    assert main(*common, f"output={out}") == 0
    return out


def contents(output: Path) -> dict[str, bytes]:
    folders = [output / "shards", output / "features.json"]
    files = [
        path
        for folder in folders
        for path in ([folder] if folder.is_file() else folder.rglob("*.*"))
    ]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def test_two_processes_of_torchrun_give_the_same_bytes(
    one_process: Path, common: list[str], tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        TOOL,
        *common,
    ]
    done = subprocess.run(
        [*command, f"output={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(one_process) and len(contents(tmp_path)) == 10


def test_an_array_of_jobs_gives_the_same_bytes(
    one_process: Path, common: list[str], tmp_path: Path, tool: Any
) -> None:
    array = (
        "--engine",
        "slurm",
        "--cluster",
        "local",
        "--tasks",
        "2",
        "--gpus",
        "0",
        "--cpus",
        "1",
    )
    done = tool("extract_features.py", *common, f"output={tmp_path}", *array)
    assert done.returncode == 0, done.stderr
    assert f"logs: {tmp_path / 'slurm'}" in done.stderr
    assert contents(tmp_path) == contents(one_process)
    assert len(list((tmp_path / "slurm").glob("*_result.pkl"))) == 2


def test_a_job_that_fails_says_so(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ArrayJob(str(ROOT / TOOL), (*common, f"output={tmp_path}", "features.stages=[9]"), 0, 1)
    with pytest.raises(RuntimeError, match="ended with exit code 2; its log says why"):
        job()
    assert "features.stages=[9]: this model has stages 1 to 3" in capsys.readouterr().err
    assert job.checkpoint().function is job


def test_it_says_what_it_does(
    common: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO):
        assert main("--dry-run", *common, f"output={out}", "features.pooling=none") == 0
        assert (
            "dry run: 2 videos gave {'stage3': [4, 8, 2, 2, 256]}; nothing written" in caplog.text
        )
        assert not out.exists()
        assert main(*common, f"output={out}") == 0
    assert "12 clips of 6 videos in 3 shards" in caplog.text and f"{out}: complete" in caplog.text
    bar = capfd.readouterr().err
    assert "6/6" in bar and "clips/s, 0 failed" in bar


def test_mistakes_are_one_line_at_once(common: list[str], tool: Any, tmp_path: Path) -> None:
    done = tool(
        "extract_features.py",
        "--cfg",
        CONFIG,
        "model.pretrained=none",
        "output=y",
        "--tasks",
        "2",
        "input=x",
    )
    assert done.returncode == 2 and done.stderr == (
        "error: model.pretrained=none: fresh weights give features of nothing; set it to a checkpoint, a tag or "
        "hf-hub:owner/name, or give --run\n"
    )
    done = tool("extract_features.py", *common, "output=y", "--engine", "ray", "--tasks", "0")
    assert done.returncode == 2 and done.stderr == "error: --tasks 0: must be 1 or more\n"
    script = "import runpy, sys; runpy.run_path('tools/extract_features.py', run_name='x'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_every_refusal_has_its_words(common: list[str], tmp_path: Path) -> None:
    def config(*overrides: str) -> Any:
        return resolve_config(CONFIG, ("model.pretrained=x", "features.output=y", *overrides))

    with pytest.raises(
        ValueError, match=r"output= is not set; name the folder that the features go to"
    ):
        check(resolve_config(CONFIG))
    with pytest.raises(
        ValueError, match=r"input= is not set; name a list of videos, a folder, a glob such as"
    ):
        read_input(config())
    with pytest.raises(
        ValueError, match=r"/\*.mp4: matches no file; quote the glob, and check it with ls"
    ):
        read_input(config(f"features.input={tmp_path}/*.mp4"))
    with pytest.raises(ValueError, match=r"holds no config.yaml; give the out_dir of a run"):
        resolve_config(tmp_path)
    check(config())


def test_what_input_can_be(videos: Path) -> None:
    def names(source: object) -> list[str]:
        found = read_input(resolve_config(CONFIG, (f"features.input={source}",)))
        assert [record.row for record in found.records] == list(range(len(found.records)))
        assert all(Path(record.path).is_absolute() for record in found.records)
        return [Path(record.path).name for record in found.records]

    assert names(videos / "val.csv") == [f"val_{number}.mp4" for number in range(6)]
    assert len(names(videos)) == 18 and names(videos / "val_3.mp4") == ["val_3.mp4"]
    assert names(f"{videos}/val_[24].mp4") == ["val_2.mp4", "val_4.mp4"]


def test_a_runs_folder_brings_its_configuration_and_weights(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((ROOT / CONFIG).read_text())
    assert resolve_config(tmp_path, ("features.batch_size=2",)).model.pretrained == str(tmp_path)
