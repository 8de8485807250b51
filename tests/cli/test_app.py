"""Arguments of `hiera-video app`: what is refused, in which words, and the defaults."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest

from hiera_video.app import start
from hiera_video.app.uploads import AppLimits, Uploads
from hiera_video.cli.app import main
from hiera_video.config.load import load_config
from hiera_video.data.manifest.record import Record
from hiera_video.errors import ConfigError, HieraVideoError, MissingPackageError
from hiera_video.workflows.predict import ModelSource


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the demo's run, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "motion_hard_hiera_micro"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("model:\n  name: hiera_micro_16x32\n")
    return folder


def refused(*arguments: str) -> str:
    with pytest.raises(HieraVideoError) as error:
        main(arguments)
    return str(error.value)


def test_the_demo_is_the_default(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        start, "run_app", lambda source, **options: given.update(source=source, **options) or 0
    )
    assert main([]) == 0
    assert given["source"] == ModelSource("runs/motion_hard_hiera_micro", None)
    assert (given["port"], given["mae"], given["store"], given["examples"]) == (
        7860,
        None,
        None,
        [],
    )
    assert (given["limits"].max_mb, given["limits"].max_seconds) == (100, 60)
    assert main(["--model", "hiera_base_16x224", "--checkpoint", "a.pth", "input=v/"]) == 0
    assert given["source"] == ModelSource(None, None, "hiera_base_16x224", "a.pth")
    assert given["examples"] == ["v/"]


def test_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused() == (
        "no model: give --run DIR, or --model NAME with --checkpoint WEIGHTS, or make the demo's: "
        "hiera-video demo"
    )


def test_arguments_that_are_refused(run: Path) -> None:
    assert refused("--port", "70000") == "--port 70000: must be between 1 and 65535"
    assert refused("--max-mb", "0") == "--max-mb 0: must be above 0 and finite"
    assert refused("--mae", "none") == "--mae none: no such folder; correct it"
    assert refused("--store", "none") == "--store none: no such folder; correct it"
    assert refused("x.mp4") == "x.mp4: unknown argument; give videos to pick from as input=PATH"
    assert refused("output=a") == "a: unknown argument; give videos to pick from as input=PATH"


def test_a_port_that_is_taken_is_one_line(run: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert refused("--port", str(port)) == (
            f"--port {port}: in use by another program; choose another, such as --port {port + 1}"
        )


def test_a_missing_extra_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gradio" else real(name)
    )
    with pytest.raises(MissingPackageError) as error:
        main([])
    assert str(error.value) == "gradio is not installed; pip install 'hiera-video[app]'"


def test_the_pretraining_of_a_run_is_found(run: Path) -> None:
    mae = run.parent / "mae"
    config = load_config(run / "config.yaml", [f"model.pretrained={mae}"])
    assert start.pretraining_of(config) is None
    (mae / "checkpoints").mkdir(parents=True)
    (mae / "config.yaml").write_text(
        "model:\n  name: mae_hiera_micro_16x32\ntrain:\n  task: pretrain\n"
    )
    assert start.pretraining_of(config) == str(mae)


def test_examples_are_one_of_each_class_first(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    records = []
    for row, label in enumerate([0, 0, 1, 1, 2, 0]):
        path = tmp_path / f"{row}.mp4"
        path.write_bytes(bytes([row]) * (2_000_000 if row == 4 else 10))
        records.append(Record(path=str(path), label=label, row=row))
    records.append(Record(path=str(tmp_path / "missing.mp4"), label=3, row=6))
    uploads = Uploads(folder, AppLimits(max_mb=1))
    copies = start.copy_examples(records, uploads)
    assert [path.name for path in copies] == [f"example_{number}.mp4" for number in range(1, 6)]
    # without the one that is too large, and the one that is missing
    assert [path.read_bytes()[0] for path in copies] == [0, 2, 1, 3, 5]
    with pytest.raises(ConfigError):
        uploads.check(str(tmp_path / "0.mp4"))
