"""R3: the disk is full. R4: checkpoints are damaged or foreign. R5: the folder is taken or cannot be written."""

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
from hiera_video.train.checkpoint import FILES, read_checkpoint, seal

LAST = 5
"""The newest checkpoint of the runs that are damaged; the one before is step 4."""


def full_disk(lab: Lab, count: int) -> Result:
    """From some step on the process cannot write files beyond a random size, below that of a checkpoint's files."""
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
        code, said = fork.wait(), fork.said
        problems = []
        if (
            code != 2
            or "cannot be written" not in said
            or "checkpoints before it are untouched" not in said
        ):
            problems.append(f"exit code {code}: {said[-300:]}")
        litter = [path.name for path in (run / "checkpoints").glob(".*")]
        if litter:
            problems.append(f"litter: {litter}")
        result.add(f"limit {limit} ({recipe})", problems + lab.resume(recipe, run))
    return result


@dataclass
class Damage:
    """One way to damage the newest checkpoint; `refused`: it verifies but is foreign, so the run must not start."""

    name: str
    apply: Callable[[Path], None]
    refused: bool = False


def damaged_checkpoints(lab: Lab, count: int) -> Result:
    """Damage step 5 of a run, give the same command again."""
    result = Result("R4")
    every = list(_damages(lab))
    kinds = every if count >= len(every) else every[:: -(-len(every) // count)]
    for number, damage in enumerate(kinds):
        recipe = "classify" if damage.refused else RECIPES[number % 2]
        run = lab.until(recipe, LAST)
        damage.apply(run / "checkpoints" / f"step_{LAST:08d}")
        fork = lab.start(recipe, run, "train.keep=100")
        code, said = fork.wait(), fork.said
        problems = []
        if (lab.folder / "exploded").exists():
            problems.append("the bomb ran")
        if damage.refused:
            if code != 2 or "is of another model or optimizer" not in said or "Traceback" in said:
                problems.append(f"exit code {code}: {said[-300:]}")
        else:
            named = f"step_{LAST:08d}" in said and "falling back to the one before" in said
            if code != 0 or not named or f"continuing {run} after step {LAST - 1}" not in said:
                problems.append(f"exit code {code}: {said[-300:]}")
            else:
                problems += lab.resume(
                    recipe, run, "train.keep=100"
                )  # it is finished: compares alone
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
                f"{name} cut to {share:.0%}", lambda folder, n=name, s=share: _cut(folder / n, s)
            )
        for _ in range(4):
            place = generator.random()
            yield Damage(
                f"{name} bit flipped at {place:.2f}",
                lambda folder, n=name, p=place: _flip(folder / n, p),
            )
        yield Damage(f"{name} zeroed in the middle", lambda folder, n=name: _zero(folder / n))
        yield Damage(f"{name} empty", lambda folder, n=name: _cut(folder / n, 0))
        yield Damage(f"{name} missing", lambda folder, n=name: (folder / n).unlink())
        yield Damage(f"{name} of the step before", lambda folder, n=name: _exchange(folder, n))
        yield Damage(f"{name} is a folder", lambda folder, n=name: _folder_instead(folder / n))
    yield Damage("all files missing", _empty_folder)
    yield Damage("bomb as state.pt", lambda folder: _bomb(folder, "state.pt", lab))
    yield Damage(
        "bomb as model.safetensors", lambda folder: _bomb(folder, "model.safetensors", lab)
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
    yield Damage("no optimizer", lambda folder: _reseal(folder, {}), refused=True)


def _damaged_weights(lab: Lab) -> Iterator[tuple[str, Path]]:
    for name, damage in {
        "bit flipped": lambda p: _flip(p, 0.7),
        "cut short": lambda p: _cut(p, 0.9),
    }.items():
        run = lab.until("classify", LAST)
        damage(run / "checkpoints" / "best" / "model.safetensors")
        yield f"best checkpoint of a run, {name}", run
    bomb = lab.place() / "bomb.pth"
    bomb.write_bytes(pickle.dumps({"model_state": _Bomb(lab)}))
    yield "pickle bomb as .pth", bomb


def _refuses(source: Path, lab: Lab) -> list[str]:
    try:
        read_weights(source)
    except CheckpointError:
        return ["the bomb ran"] if (lab.folder / "exploded").exists() else []
    return ["was loaded"]


class _Bomb:
    """Leaves a file behind when it is unpickled without care."""

    def __init__(self, lab: Lab) -> None:
        self.target = lab.folder / "exploded"

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def _cut(path: Path, share: float) -> None:
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


def _reseal(folder: Path, state: dict[str, object]) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    torch.save(state, folder / "state.pt")
    seal(folder, {key: value for key, value in meta.items() if key not in ("files", "sha256")})


def _bomb(folder: Path, name: str, lab: Lab) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / name).write_bytes(pickle.dumps(_Bomb(lab)))
    seal(folder, {key: value for key, value in meta.items() if key not in ("files", "sha256")})


def _foreign_weights(folder: Path, model: str, classes: int) -> None:
    state = read_checkpoint(folder).state
    save_file(create_model(model, num_classes=classes).state_dict(), folder / "model.safetensors")
    assert load_file(folder / "model.safetensors")
    _reseal(folder, state)


def _sgd(folder: Path) -> None:
    state = read_checkpoint(folder).state
    groups = [
        {"params": g["params"], "lr": 0.1, "momentum": 0.9}
        for g in state["optimizer"]["param_groups"]
    ]
    _reseal(folder, {**state, "optimizer": {"state": {}, "param_groups": groups}})


def _reshaped(folder: Path) -> None:
    state = read_checkpoint(folder).state
    for values in state["optimizer"]["state"].values():
        values["exp_avg"] = values["exp_avg"].flatten()[:1]
    _reseal(folder, state)


def folder_taken(lab: Lab, count: int) -> Result:
    """A second run in a running run's folder; a folder that cannot be written."""
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
        codecs.lookup("utf-8-sig")  # nobody may not read the interpreter's own files everywhere
        locked = lab.place()
        for folder in (lab.folder, lab.videos):
            folder.chmod(0o755)
        log = locked.with_suffix(".log")
        log.touch()
        locked.chmod(0o555)
        hook = (
            (lambda: os.setuid(65534)) if os.geteuid() == 0 else None
        )  # root may write everywhere
        fork = Fork(lab.arguments(recipe, locked / "run"), log=log, hook=hook)
        result.add(
            f"not writable ({recipe})", _refused(fork, "cannot be written (Permission denied)")
        )
    return result


def _refused(fork: Fork, words: str) -> list[str]:
    code, said = fork.wait(), fork.said
    ok = code == 2 and words in said and "Traceback" not in said and "step 1/" not in said
    return [] if ok else [f"exit code {code}: {said[-300:]}"]
