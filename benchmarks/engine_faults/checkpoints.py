"""R3: full disk. R4: damaged or foreign checkpoints. R5: run folder in use or not writable."""

from __future__ import annotations

import codecs
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine_faults.forks import Fork
from engine_faults.kills import wait
from engine_faults.runs import RECIPES, Lab, Result, logged, moments
from hiera_video.errors import CheckpointError
from hiera_video.models.factory import create_model
from hiera_video.models.weights.load import read_weights
from hiera_video.train.checkpoint import FILES, read_checkpoint, write_meta

LAST = 5
"""Step of the newest checkpoint, which is damaged."""


def full_disk(lab: Lab, count: int) -> Result:
    """Limit file sizes from some step on, to less than a checkpoint's files need."""
    result = Result("R3")
    for number, moment in enumerate(moments(count, seed=3)):
        recipe = RECIPES[number % 2]
        sizes = [
            (lab.reference(recipe) / "checkpoints" / "last" / name).stat().st_size for name in FILES
        ]
        low, high = (30_000, sizes[0]) if number // 2 % 2 == 0 else sizes
        limit = int(low + moment * (high - low) * 0.99)
        run = lab.place() / "run"
        fork = lab.start(recipe, run)
        wait(lambda: logged(run) >= 2 or fork.poll() is not None)  # noqa: B023
        fork.limit_file_size(limit)
        code, output = fork.wait(), fork.output
        problems = []
        if (
            code != 2
            or "cannot be written" not in output
            or "existing checkpoints are intact" not in output
        ):
            problems.append(f"exit code {code}: {output[-300:]}")
        leftovers = [path.name for path in (run / "checkpoints").glob(".*")]
        if leftovers:
            problems.append(f"leftovers: {leftovers}")
        result.add(f"limit {limit} ({recipe})", problems + lab.resume(recipe, run))
    return result


@dataclass
class Damage:
    """A way to damage the newest checkpoint."""

    name: str
    apply: Callable[[Path], None]
    refused: bool = False
    """The checkpoint verifies but is foreign, so that the run must not start."""


def damaged_checkpoints(lab: Lab, count: int) -> Result:
    """Damage the last checkpoint of a run and run the command again."""
    result = Result("R4")
    damages = list(_damages(lab))
    if count < len(damages):
        damages = damages[:: -(-len(damages) // count)]
    for number, damage in enumerate(damages):
        recipe = "classify" if damage.refused else RECIPES[number % 2]
        run = lab.until(recipe, LAST)
        damage.apply(run / "checkpoints" / f"step_{LAST:08d}")
        fork = lab.start(recipe, run, "train.keep=100")
        code, output = fork.wait(), fork.output
        problems = []
        if (lab.folder / "unpickled").exists():
            problems.append("pickled code ran")
        if damage.refused:
            named = "is of another model or optimizer" in output
            if code != 2 or not named or "Traceback" in output:
                problems.append(f"exit code {code}: {output[-300:]}")
        else:
            fell_back = (
                f"step_{LAST:08d}" in output
                and "falling back to the previous checkpoint" in output
                and f"resuming {run} after step {LAST - 1}" in output
            )
            if code != 0 or not fell_back:
                problems.append(f"exit code {code}: {output[-300:]}")
            else:
                # the run is complete: this only compares it
                problems += lab.resume(recipe, run, "train.keep=100")
        result.count("refused" if damage.refused else "fallen back")
        result.add(f"{damage.name} ({recipe})", problems)
    for name, source in _damaged_weights(lab):
        result.count("refused as model.pretrained")
        result.add(f"model.pretrained: {name}", _refuses(source, lab))
    return result


def _damages(lab: Lab) -> Iterator[Damage]:
    generator = random.Random("damages")
    for name in (*FILES, "meta.json"):
        for share in (0.1, 0.5, 0.99):
            yield Damage(
                f"{name} truncated to {share:.0%}",
                lambda folder, n=name, s=share: _truncate(folder / n, s),
            )
        for _ in range(4):
            place = generator.random()
            yield Damage(
                f"{name} bit flipped at {place:.2f}",
                lambda folder, n=name, p=place: _flip(folder / n, p),
            )
        yield Damage(f"{name} zeroed in the middle", lambda folder, n=name: _zero(folder / n))
        yield Damage(f"{name} empty", lambda folder, n=name: _truncate(folder / n, 0))
        yield Damage(f"{name} missing", lambda folder, n=name: (folder / n).unlink())
        yield Damage(f"{name} of the previous step", lambda folder, n=name: _exchange(folder, n))
        yield Damage(f"{name} is a folder", lambda folder, n=name: _folder_instead(folder / n))
    yield Damage("all files missing", _empty_folder)
    yield Damage("pickled code as state.pt", lambda folder: _write_pickle(folder, "state.pt", lab))
    yield Damage(
        "pickled code as model.safetensors",
        lambda folder: _write_pickle(folder, "model.safetensors", lab),
    )
    yield Damage(
        "another architecture",
        lambda folder: _foreign_weights(folder, "hiera_tiny_16x224", 2),
        refused=True,
    )
    yield Damage(
        "another class count",
        lambda folder: _foreign_weights(folder, "hiera_micro_16x32", 7),
        refused=True,
    )
    yield Damage("another optimizer", _sgd, refused=True)
    yield Damage("an optimizer of other shapes", _reshaped, refused=True)
    yield Damage("no optimizer", lambda folder: _replace_state(folder, {}), refused=True)


def _damaged_weights(lab: Lab) -> Iterator[tuple[str, Path]]:
    for name, damage in {
        "bit flipped": lambda p: _flip(p, 0.7),
        "truncated": lambda p: _truncate(p, 0.9),
    }.items():
        run = lab.until("classify", LAST)
        damage(run / "checkpoints" / "best" / "model.safetensors")
        yield f"best checkpoint of a run, {name}", run
    pickled = lab.place() / "pickled.pth"
    pickled.write_bytes(pickle.dumps({"model_state": _MakesFolder(lab)}))
    yield "pickled code as .pth", pickled


def _refuses(source: Path, lab: Lab) -> list[str]:
    try:
        read_weights(source)
    except CheckpointError:
        return ["pickled code ran"] if (lab.folder / "unpickled").exists() else []
    return ["was loaded"]


class _MakesFolder:
    """Creates a folder when it is unpickled."""

    def __init__(self, lab: Lab) -> None:
        self.target = lab.folder / "unpickled"

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def _truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def _zero(path: Path) -> None:
    content = path.read_bytes()
    middle, hole = len(content) // 2, min(4096, len(content) // 4)
    path.write_bytes(content[:middle] + bytes(hole) + content[middle + hole :])


def _exchange(folder: Path, name: str) -> None:
    shutil.copy(folder.with_name(f"step_{LAST - 1:08d}") / name, folder / name)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _replace_state(folder: Path, state: dict[str, object]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    torch.save(state, folder / "state.pt")
    write_meta(
        folder, {key: value for key, value in meta.items() if key not in ("files", "sha256")}
    )


def _write_pickle(folder: Path, name: str, lab: Lab) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / name).write_bytes(pickle.dumps(_MakesFolder(lab)))
    write_meta(
        folder, {key: value for key, value in meta.items() if key not in ("files", "sha256")}
    )


def _foreign_weights(folder: Path, model: str, classes: int) -> None:
    state = read_checkpoint(folder).state
    save_file(create_model(model, num_classes=classes).state_dict(), folder / "model.safetensors")
    assert load_file(folder / "model.safetensors")
    _replace_state(folder, state)


def _sgd(folder: Path) -> None:
    state = read_checkpoint(folder).state
    groups = [
        {"params": g["params"], "lr": 0.1, "momentum": 0.9}
        for g in state["optimizer"]["param_groups"]
    ]
    _replace_state(folder, {**state, "optimizer": {"state": {}, "param_groups": groups}})


def _reshaped(folder: Path) -> None:
    state = read_checkpoint(folder).state
    for values in state["optimizer"]["state"].values():
        values["exp_avg"] = values["exp_avg"].flatten()[:1]
    _replace_state(folder, state)


def folder_taken(lab: Lab, count: int) -> Result:
    """Start a second run in the folder of a running one, and a run in a read-only folder."""
    result = Result("R5")
    for number in range(count):
        recipe = RECIPES[number % 2]
        run = lab.place() / "run"
        first = lab.start(recipe, run)
        wait(lambda: logged(run) >= 1 or first.poll() is not None)  # noqa: B023
        second = Fork(lab.arguments(recipe, run), log=run.with_name("second.log"))
        problems = _refused(second, "another run is writing there")
        first.wait()
        result.add(f"two runs ({recipe})", problems + lab.resume(recipe, run))
        codecs.lookup("utf-8-sig")  # imported before the user changes
        locked = lab.place()
        for folder in (lab.folder, lab.videos):
            folder.chmod(0o755)
        log = locked.with_suffix(".log")
        log.touch()
        locked.chmod(0o555)
        # root may write everywhere
        hook = (lambda: os.setuid(65534)) if os.geteuid() == 0 else None
        fork = Fork(lab.arguments(recipe, locked / "run"), log=log, hook=hook)
        result.add(
            f"not writable ({recipe})", _refused(fork, "cannot be written (Permission denied)")
        )
    return result


def _refused(fork: Fork, words: str) -> list[str]:
    code, output = fork.wait(), fork.output
    ok = code == 2 and words in output and "Traceback" not in output and "step 1/" not in output
    return [] if ok else [f"exit code {code}: {output[-300:]}"]
