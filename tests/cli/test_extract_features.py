"""The extraction command: the same bytes from one process, torchrun and an array of jobs."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hiera_video.cli.extract import main
from hiera_video.errors import ConfigError
from hiera_video.features.engine_slurm import ArrayJob
from hiera_video.models.factory import create_model
from hiera_video.models.weights.save import save_pretrained
from hiera_video.workflows.extract import check_extraction, read_input, resolve_config

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/motion_hiera_micro.yaml")
TOOL = "tools/extract_features.py"


@pytest.fixture(scope="module")
def common(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    torch.manual_seed(0)
    model = tmp_path_factory.mktemp("model") / "model"
    save_pretrained(create_model("hiera_micro_16x32"), model)
    small = ["features.shard_videos=2", "features.batch_size=4", "data.workers=0"]
    return ["--cfg", CONFIG, f"model.pretrained={model}", f"input={videos / 'val.csv'}", *small]


@pytest.fixture(scope="module")
def one_process(common: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "features"
    assert main([*common, f"output={out}"]) == 0
    return out


def contents(output: Path) -> dict[str, bytes]:
    files = [output / "features.json", *(output / "shards").rglob("*.*")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_two_processes_of_torchrun_give_the_same_bytes(
    one_process: Path, common: list[str], tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, TOOL, *common, f"output={tmp_path}", "data.workers=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(one_process) and len(contents(tmp_path)) == 10


@pytest.mark.slow
def test_an_array_of_jobs_gives_the_same_bytes(
    one_process: Path, common: list[str], tmp_path: Path, launch: Any
) -> None:
    array = ("--engine=slurm", "--cluster=local", "--tasks=2", "--gpus=0", "--cpus=1")
    done = launch("extract_features.py", *common, f"output={tmp_path}", *array)
    assert done.returncode == 0, done.stderr
    assert f"logs: {tmp_path / 'slurm'}" in done.stderr
    assert contents(tmp_path) == contents(one_process)
    assert len(list((tmp_path / "slurm").glob("*_result.pkl"))) == 2


def test_a_job_that_fails_raises_its_exit_code(
    common: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (*common, f"output={tmp_path}", "features.stages=[9]")
    job = ArrayJob(str(ROOT / TOOL), arguments, 0, 1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            patch.setenv(name, "0")  # the job sets them
        with pytest.raises(RuntimeError, match="ended with exit code 2; see its log"):
            job()
    assert "features.stages=[9]: this model has stages 1 to 3" in capsys.readouterr().err
    assert job.checkpoint().function is job


def test_dry_run_and_log(
    common: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO):
        assert main(["--dry-run", *common, f"output={out}", "features.pooling=none"]) == 0
        shapes = "{'stage3': [4, 8, 2, 2, 256]}"
        assert f"dry run: 2 videos gave {shapes}; nothing written" in caplog.text
        assert not out.exists()
        assert main([*common, f"output={out}"]) == 0
    assert "12 clips of 6 videos in 3 shards" in caplog.text and f"{out}: complete" in caplog.text
    bar = capfd.readouterr().err
    assert "6/6" in bar and "clips/s, 0 failed" in bar


@pytest.mark.parametrize("suffix", ["safetensors", "parquet"])
def test_the_same_command_repairs_a_shard_without_its_files(
    one_process: Path,
    common: list[str],
    tmp_path: Path,
    suffix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(one_process, tmp_path / "out")
    lost, emptied = (tmp_path / f"out/shards/00000/0000000{n}.{suffix}" for n in (0, 2))
    lost.unlink()
    emptied.write_bytes(b"")
    assert main([*common, f"output={tmp_path / 'out'}"]) == 0
    assert contents(tmp_path / "out") == contents(one_process)
    assert f"00000000.{suffix} missing or damaged; shard 0 is computed again" in caplog.text
    assert "shard 2 is computed again" in caplog.text and "shard 1 " not in caplog.text


def test_mistakes_are_one_line_before_torch_is_imported(launch: Any) -> None:
    done = launch("extract_features.py", "--cfg", CONFIG, "model.pretrained=none", "output=y")
    assert done.returncode == 2 and done.stderr == (
        "error: model.pretrained=none: features need trained weights; set it to a checkpoint, a "
        "tag or hf-hub:owner/name, or give --run\n"
    )
    script = (
        "import runpy, sys; runpy.run_path('tools/extract_features.py', run_name='x'); "
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_invalid_arguments_are_refused(common: list[str], tmp_path: Path) -> None:
    def config(*overrides: str) -> Any:
        return resolve_config(CONFIG, ("model.pretrained=x", "features.output=y", *overrides))

    with pytest.raises(ConfigError, match="--tasks 0: must be 1 or more"):
        main([*common, "output=y", "--engine", "ray", "--tasks", "0"])
    with pytest.raises(ConfigError, match=r"output= is not set; name the folder for the features"):
        check_extraction(resolve_config(CONFIG))
    with pytest.raises(
        ConfigError, match=r"input= is not set; name a list of videos, a folder, a glob such as"
    ):
        read_input(config())
    with pytest.raises(
        ConfigError, match=r"/\*.mp4: matches no file; quote the glob, and check it with ls"
    ):
        read_input(config(f"features.input={tmp_path}/*.mp4"))
    with pytest.raises(ConfigError, match=r"has no config.yaml; give the out_dir of a run"):
        resolve_config(tmp_path)
    check_extraction(config())


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (
            ["output=a/feat.npy"],
            r"output=a/feat.npy: must be a folder, .*; write output=a/feat;",
        ),
        (["features.output=x.H5"], r"output=x.H5: must be a folder, for a store of many files"),
        (["output={file}"], r"output=.*/plain: is a file; name a folder"),
        (["output=x", "features.output=y"], "output=y: given twice .output=x.; remove one of them"),
        (["output=x", "output=y"], "output=y: given twice .output=x.; remove one of them"),
        (["output=x", "input=other.csv"], "input=other.csv: given twice .input=.*val.csv.; remove"),
    ],
)
def test_one_folder_for_the_features(
    common: list[str], tmp_path: Path, outputs: list[str], words: str
) -> None:
    (tmp_path / "plain").touch()
    outputs = [text.replace("{file}", str(tmp_path / "plain")) for text in outputs]
    with pytest.raises(ConfigError, match=f"^{words}"):
        main([*common, *outputs])


def test_input_is_a_list_a_folder_a_video_or_a_glob(videos: Path) -> None:
    def names(source: object) -> list[str]:
        found = read_input(resolve_config(CONFIG, (f"features.input={source}",)))
        assert [record.row for record in found.records] == list(range(len(found.records)))
        assert all(Path(record.path).is_absolute() for record in found.records)
        return [Path(record.path).name for record in found.records]

    assert names(videos / "val.csv") == [f"val_{number}.mp4" for number in range(6)]
    assert len(names(videos)) == 18 and names(videos / "val_3.mp4") == ["val_3.mp4"]
    assert names(f"{videos}/val_[24].mp4") == ["val_2.mp4", "val_4.mp4"]


def test_a_run_folder_has_its_config_and_weights(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(Path(CONFIG).read_text())
    config = resolve_config(tmp_path, ("features.batch_size=2",))
    assert config.model.pretrained == str(tmp_path) and config.features.batch_size == 2
