"""Objects of training code beside the weights are skipped, and none of their code runs."""

from __future__ import annotations

import argparse
import collections
import importlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.load import read_weights
from hiera_video.models.weights.torch_files import UnreadObject, _substitute, load_torch_file

STATE = {"patch_embed.proj.weight": torch.ones(4, 3, 2, 2, 2), "norm.weight": torch.ones(4)}


class Call:
    """Unpickled by pickle itself, calls `function` on `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


class Options:
    """A class of training code that is gone when the file is read."""

    def __init__(self) -> None:
        self.lr = 0.1


@pytest.fixture
def foreign() -> Iterator[ModuleType]:
    """A module that exists while a file is written, and must not be imported afterwards."""
    module = ModuleType("training_code")
    for base in (object, dict, nn.Linear):
        name = {object: "HistoryBuffer", dict: "ConfigDict", nn.Linear: "Net"}[base]
        setattr(module, name, type(name, (base,), {"__module__": "training_code"}))
    sys.modules["training_code"] = module
    yield module
    sys.modules.pop("training_code", None)


def loaded(contents: Any, folder: Path) -> dict[str, Tensor]:
    torch.save(contents, folder / "x.pth")
    sys.modules.pop("training_code", None)
    state = read_weights(folder / "x.pth").state
    assert "training_code" not in sys.modules
    return state


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(0.8),
        np.ones((2, 3)),
        np.array(["a", None], dtype=object),
        argparse.Namespace(lr=0.1, output=Path("runs/x"), best=np.float32(1)),
        OmegaConf.create({"optim": {"lr": [0.1, 0.2]}}),
        collections.defaultdict(list, {"loss": [1.0]}),
        collections.deque([1, 2], maxlen=3),
        Options(),
        {"log": [(Path("a"), {Path("b"): Options()})]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_beside_the_state_dict(beside: Any, tmp_path: Path) -> None:
    state = loaded({"model": STATE, "beside": beside}, tmp_path)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], value) for name, value in STATE.items())


def test_objects_of_missing_modules(foreign: Any, tmp_path: Path, caplog: Any) -> None:
    buffer = foreign.HistoryBuffer()
    buffer.history, buffer.methods = np.ones(3), {"min": foreign.HistoryBuffer.__init__}
    config = foreign.ConfigDict(lr=0.1, optim=foreign.ConfigDict(name="adamw"))
    hub = {"log_scalars": collections.OrderedDict({"train/loss": buffer})}
    with caplog.at_level(logging.INFO, logger="hiera_video"):
        state = loaded({"state_dict": STATE, "message_hub": hub, "cfg": config}, tmp_path)
    assert state.keys() == STATE.keys()
    assert "x.pth: skipped objects made by" in caplog.text
    assert "training_code.ConfigDict, training_code.HistoryBuffer" in caplog.text


def test_an_unread_object_keeps_its_name_alone(tmp_path: Path) -> None:
    torch.save({"options": Options()}, tmp_path / "x.pth")
    found = load_torch_file(tmp_path / "x.pth")["options"]
    assert isinstance(found, UnreadObject) and not hasattr(found, "__dict__")
    assert found.name == f"{__name__}.Options"
    assert _substitute("m\x1b[31m.K\n" + "b" * 200).__name__ == "K\\x0a" + "b" * 155


@pytest.mark.parametrize(
    "call",
    [
        Call(eval, "open('exploded', 'w')"),
        Call(exec, "open('exploded', 'w')"),
        Call(open, "exploded", "w"),
        Call(subprocess.call, ["touch", "exploded"]),
        Call(subprocess.Popen, ["touch", "exploded"]),
        Call(importlib.import_module, "exploding"),
        Call(map, Call(getattr, Path, "touch"), [Path("exploded")]),
        [Call(eval, Call(str, "open('exploded', 'w')"))],
    ],
    ids=range(8),
)
def test_calls_do_nothing(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "exploding.py").write_text("open('exploded', 'w')")
    assert loaded({"model": STATE, "bomb": call}, tmp_path).keys() == STATE.keys()
    assert not (tmp_path / "exploded").exists()
    assert "exploding" not in sys.modules


class Items:
    """Unpickled by pickle itself, gives an `Options` a state, appends to it and sets its items."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Options, (), {"lr": Call(eval, "open('exploded', 'w')")}, iter([1]), iter([(1, 2)])


def test_items_of_unknown_containers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = r"x\.pth: cannot be read .*but got .*Options.*contains objects that cannot be skipped"
    with pytest.raises(CheckpointError, match=words):
        loaded({"model": STATE, "bomb": Items()}, tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_calling_an_unread_object_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method is pickled as a call of `getattr`, whose result is unread."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="call reduce for unrecognized function <getattr"):
        loaded({"model": STATE, "bomb": Call(Path.touch, Path("exploded"))}, tmp_path)
    assert not (tmp_path / "exploded").exists()


def rebuilt(values: list[float]) -> Tensor:
    """Make a tensor in a way that no reader knows."""
    return torch.tensor(values)


@pytest.mark.parametrize("value", [np.ones(4), Call(rebuilt, [1.0] * 4)], ids=["array", "tensor"])
def test_an_object_in_the_place_of_a_weight_is_refused(value: Any, tmp_path: Path) -> None:
    words = r"x\.pth: norm\.weight is an object of .*, which is not loaded; save tensors alone in"
    for contents in ({"model": {**STATE, "norm.weight": value}}, {**STATE, "norm.weight": value}):
        with pytest.raises(CheckpointError, match=words):
            loaded(contents, tmp_path)
    wrapped = {f"module.{name}": one for name, one in STATE.items()} | {"module.norm.weight": value}
    with pytest.raises(CheckpointError, match=words):
        loaded({"model_ema": STATE, "net": wrapped}, tmp_path)


def test_a_tensor_of_an_unknown_class_is_refused(foreign: Any, tmp_path: Path) -> None:
    foreign.Weight = type("Weight", (Tensor,), {"__module__": "training_code"})
    weight = torch.ones(4).as_subclass(foreign.Weight)
    words = r"x\.pth: cannot be read \(TypeError: .*contains objects that cannot be skipped"
    with pytest.raises(CheckpointError, match=words):
        loaded({"model": {**STATE, "norm.weight": weight}}, tmp_path)


def test_a_whole_model_is_refused(foreign: Any, tmp_path: Path) -> None:
    words = r"x\.pth: {} is an object of training_code\.Net, which is not loaded; save its state"
    whole = foreign.Net(2, 2)
    for contents, key in (({"model": whole, "ema": STATE}, "model"), (whole, "its content")):
        sys.modules["training_code"] = foreign
        with pytest.raises(CheckpointError, match=words.format(key)):
            loaded(contents, tmp_path)


def test_files_of_old_torch_allow_only_options(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"model": STATE, "args": argparse.Namespace(lr=0.1)}, path, **old)
    assert read_weights(path).state.keys() == STATE.keys()
    torch.save({"model": STATE, "best": Options()}, path, **old)
    words = r"old\.pth: cannot be read \(UnpicklingError: Unsupported global: .*Options\)"
    with pytest.raises(CheckpointError, match=words):
        read_weights(path)


def test_torchs_own_list_of_allowed_names_is_unchanged(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    model = create_model("hiera_micro_16x32", num_classes=5)
    loaded({"model": model.state_dict(), "options": Options()}, tmp_path)
    assert set(torch.serialization.get_safe_globals()) == set(before)
