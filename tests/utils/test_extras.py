"""Missing optional packages: one line with the command that installs them."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

import hiera_video
from hiera_video.cli.run import exit_code
from hiera_video.errors import MissingPackageError
from hiera_video.utils.extras import EXTRAS, PACKAGES, explain_missing, require_extra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_are_those_of_the_project(extra: str) -> None:
    declared = " ".join(PROJECT["optional-dependencies"][extra]).replace("-", "_")
    for module in EXTRAS[extra]:
        assert PACKAGES.get(module, module).replace("-", "_") in declared


def test_core_and_all() -> None:
    core = [text.partition(">=")[0] for text in PROJECT["dependencies"]]
    expected = "torch torchvision av numpy einops omegaconf safetensors tqdm"
    assert sorted(core) == sorted(expected.split())
    gathered = PROJECT["optional-dependencies"]["all"][0]
    left_out = {"torchcodec", "ray", "wandb"}
    assert all((f"{extra}" in gathered) != (extra in left_out) for extra in EXTRAS)


def test_a_missing_extra_is_found_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra("features")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("pyarrow", "skimage", "sklearn") else real(name),
    )
    with pytest.raises(MissingPackageError) as error:
        require_extra("features")
    assert str(error.value) == "pyarrow is not installed; pip install 'hiera-video[features]'"
    with pytest.raises(MissingPackageError) as error:
        require_extra("demo")
    assert str(error.value) == (
        "scikit-image, scikit-learn are not installed; pip install 'hiera-video[demo]'"
    )


def test_an_import_that_fails_is_explained_by_the_command_and_by_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ModuleNotFoundError("No module named 'faiss'", name="faiss")
    assert explain_missing(missing) == (
        "faiss-cpu is not installed; pip install 'hiera-video[search]'"
    )
    assert explain_missing(ModuleNotFoundError("no", name="nothing")) is None
    assert explain_missing(ImportError("broken library", name="pyarrow.lib")) is None

    def command() -> int:
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet")

    line = "pyarrow is not installed; pip install 'hiera-video[features]'"
    assert exit_code(command) == 2
    assert capsys.readouterr().err == f"error: {line}\n"

    def fail(name: str) -> Any:
        command()

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(MissingPackageError, match="pyarrow is not installed"):
        _ = hiera_video.FeatureStore
