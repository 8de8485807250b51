"""The wheel, built from the source distribution and run outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hiera_video.cli.main import COMMANDS
from hiera_video.config.catalogue import list_configs
from hiera_video.video.encode import write_video

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
Command = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source distribution as for a release."""
    folder = tmp_path_factory.mktemp("dist")
    options = ("--no-build-isolation", "--offline", "--python", sys.executable)
    command = [BIN / "uv", "build", *options, "--out-dir", folder, ROOT]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`command("configs", …)`: run hiera-video from the installed wheel in an empty folder.

    The environment has the wheel alone; the packages that it needs are those of the tests.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv, work = folder / "venv", folder / "work"
    work.mkdir()
    uv = [str(BIN / "uv"), "--offline"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    install = ("pip", "install", "--quiet", "--no-deps", "--python", str(venv / "bin" / "python"))
    subprocess.run([*uv, *install, str(wheel)], check=True)
    # a path in a .pth file is not searched for further .pth files: the checkout stays invisible
    (packages,) = venv.glob("lib/python3.*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(venv / "bin" / "hiera-video"), *arguments],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=1800,  # a guard against hanging, not a measurement
        )
        assert done.returncode == code, f"{arguments}\n{done.stdout}\n{done.stderr}"
        assert str(ROOT) not in done.stdout + done.stderr.replace(sysconfig.get_path("purelib"), "")
        return done

    return run


def test_content_of_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    assert folders == {"hiera_video", "hiera_video-0.1.0.dist-info"}
    configs = {Path(name).stem for name in names if name.startswith("hiera_video/configs/")}
    assert configs == set(list_configs())
    for name in ("py.typed", "data/manifest/kinetics400.txt", "benchmarks/speed.py", "cli/main.py"):
        assert f"hiera_video/{name}" in names
    modules = {
        f"hiera_video/{path.relative_to(ROOT / 'hiera_video')}"
        for path in (ROOT / "hiera_video").rglob("*.py")
    }
    assert modules <= set(names)
    assert zipfile.ZipFile(wheel).getinfo("hiera_video/__init__.py").file_size > 0
    assert wheel.stat().st_size < 1_000_000


def test_help_of_every_command(command: Command) -> None:
    for name in COMMANDS:
        assert command(name, "--help").stdout.startswith(f"usage: hiera-video {name}")
    assert command("configs").stdout.count("\nk400_hiera_") == 12
    assert command("info").stdout.startswith("hiera-video ")
    assert "16×56×56  50176" in command("info", "ssv2_hiera_l_32").stdout
    assert "usage: hiera-video" in command("benchmark", "model", "--help").stdout
    error = command("train", "--cfg", "configs/k400_hiera_b.yaml", code=2).stderr
    assert "--cfg k400_hiera_b is the one that comes with the package" in error


def test_dry_run_of_a_recipe_on_a_folder_of_videos(command: Command, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (64, 120, 160, 3), dtype=np.uint8)
    for number in range(2):
        write_video(tmp_path / f"{number}.mp4", frames, fps=30)
    options = (f"data.train={tmp_path}", "clip.repeats=1", "model.pretrained=none")
    done = command("train", "--cfg", "k400_hiera_b", "--dry-run", *options)
    assert done.stderr.count("clips [1, 3, 16, 224, 224], loss ") == 2


def test_the_quick_demo_and_a_prediction(command: Command) -> None:
    out = command("demo", "--quick", "output=try").stdout
    assert "report: try/runs/motion_hard_hiera_micro_quick/report.html" in out
    done = command(
        *("predict", "try/data/motion_hard_quick/val.csv"),
        *("--run", "try/runs/motion_hard_hiera_micro_quick", "output=found.csv"),
    )
    assert len(done.stdout.splitlines()) == 16
    assert all("/motion_hard_quick/videos/" in line for line in done.stdout.splitlines())
