"""Check and measure everything on a GPU with one command.

    python benchmarks/gpu_check.py --out gpu            # or `make gpu`
    python benchmarks/gpu_check.py --out gpu --resume --only inference,fine_tune
    python benchmarks/gpu_check.py --out trial --device cpu --size micro     # try it without a GPU

Runs the tests marked `gpu`, then measures, the most valuable cases first, and writes
`gpu_check.json` after each. A case that fails is recorded there, and the others run. Needs no
network. docs/performance.md shows the results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from gpu_models import describe, free_memory, measure
from gpu_profile import profile_step
from gpu_table import table
from gpu_tests import run_tests
from gpu_timing import Setup, measure_ceilings
from gpu_workloads import (
    Decoder,
    Place,
    measure_engine,
    measure_trainer,
    run_demo,
    run_script,
)
from record import facts
from speed_case import Mode

PACKAGES = (
    *("torch", "torchvision", "triton", "av", "numpy", "hiera-transformer", "hiera-optim"),
    "timm",
)


UNFINISHED = {"type": "Unfinished", "message": "the process ended within this case"}


@dataclass(frozen=True)
class Job:
    """One case of the check."""

    name: str
    seconds: float
    """Estimated duration on an H100."""
    run: Callable[[float], dict[str, Any]]
    """Takes the seconds that are left."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print the table; return 1 if any of them failed."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parse(given)
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device("cpu")
    micro = arguments.size == "micro"
    setup = Setup(
        device=device,
        micro=micro,
        rounds=2 if micro else 5,
        round_seconds=0.01 if micro else 0.08,
    )
    out: Path = arguments.out / "gpu_check.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(arguments.work or tempfile.mkdtemp(prefix="gpu_check_"))
    work.mkdir(parents=True, exist_ok=True)
    described = describe_device(device)
    result = read(out, described) if arguments.resume else {"cases": {}}
    result |= {"command": " ".join(["python", *sys.argv]), "device": described}
    prefixes = tuple(filter(None, arguments.only.split(",")))
    began = time.monotonic()
    for job in make_jobs(setup, work, arguments.tests):
        done = has_result(result["cases"].get(job.name), keep_errors=arguments.keep_errors)
        if done or (prefixes and not job.name.startswith(prefixes)):
            continue
        left = 60 * arguments.minutes - (time.monotonic() - began)
        if left < (0 if micro else job.seconds):
            result["cases"].setdefault(job.name, {"skipped": f"{left:.0f} s were left"})
            continue
        result["cases"][job.name] = {"error": UNFINISHED}
        write(out, result)
        result["cases"][job.name] = run_job(job, left)
        write(out, result)
        taken = result["cases"][job.name]["took"]
        print(f"{job.name}: {taken:.1f} s, {60 * arguments.minutes - left + taken:.0f} s in all")
        if not is_usable(setup):
            restart([*given, "--work", str(work)], minutes=(left - taken) / 60)
    write(out, result)
    print(table(result))
    return int(any(map(has_failed, result["cases"].values())))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of gpu_check.json")
    add("--work", type=Path, help="folder for videos and runs (a temporary one)")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--size", choices=("full", "micro"), default="full", help="micro: to try the script out")
    add("--minutes", type=float, default=8.0, help="no case starts that would end later (8)")
    add("--only", default="", help="comma-separated beginnings of case names")
    add("--resume", action="store_true", help="keep the cases that are in gpu_check.json")
    add("--keep-errors", action="store_true", help="with --resume: failed cases are not repeated")
    add("--tests", default="", help="pytest's -k for the tests")
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; --device cpu --size micro is a trial run")
    return arguments


def make_jobs(setup: Setup, work: Path, tests: str) -> Iterator[Job]:
    """Yield all cases, the most valuable first."""
    limit = float("inf") if setup.micro else 300.0
    yield Job(
        "tests",
        30 if tests else 150,
        lambda left: run_tests(setup, work, timeout=min(limit, left), keyword=tests),
    )
    yield Job("ceilings", 5, lambda _: measure_ceilings(setup))
    yield from _micro_jobs(setup) if setup.micro else _model_jobs(setup)
    yield from _program_jobs(setup, work)
    if not setup.micro:
        yield from _more_jobs(setup)


def _job(mode: Mode, size: str, batch: int, names: str, seconds: float, setup: Setup) -> Job:
    kind = {"model": "inference", "train": "fine_tune", "mae": "mae"}[mode]
    switched = "+compile" if "+compile" in names else "+switches" if "+conv" in names else ""
    run = partial(measure, mode, size, batch, names.split(), setup)
    return Job(f"{kind}/{size}/{batch}{switched}", seconds, lambda _: run())


EAGER = "ours ours+flash reference optim"
COMPILED = "ours+autocast+compile+graph ours+compile+graph ours+autocast ours"
SERVED = "ours+graph ours+autocast+graph ours ours+autocast reference optim"


def _model_jobs(setup: Setup) -> Iterator[Job]:
    yield _job("model", "base", 32, SERVED, 20, setup)
    yield _job("model", "large", 32, SERVED, 20, setup)
    yield _job("mae", "base", 32, EAGER, 12, setup)
    yield _job("train", "large", 8, EAGER, 20, setup)
    yield _job("train", "base", 16, EAGER, 15, setup)
    for mode, batch in (("model", 32), ("mae", 32), ("train", 16)):
        yield _profile(mode, "base", batch, "ours", 6, setup)
    yield _job("model", "large", 32, "ours+compile+graph ours ours+sdpa", 25, setup)
    yield _job("mae", "base", 32, "ours+compile ours ours+graph", 50, setup)
    yield _job("train", "large", 16, "ours+compile ours", 50, setup)
    yield _job("train", "base", 16, "ours+compile ours ours+sdpa", 40, setup)
    finish = partial(run_script, "gpu_finish.py", setup=setup)
    yield Job("finish", 12, lambda left: finish(timeout=min(40, left)))
    yield Job("engine/base", 20, lambda _: measure_engine("train", "base", 16, setup))
    yield Job("engine/base_mae", 30, lambda _: measure_engine("mae", "base", 32, setup))


def _profile(mode: Mode, size: str, batch: int, name: str, seconds: float, setup: Setup) -> Job:
    kind = {"model": "inference", "train": "fine_tune", "mae": "mae"}[mode]
    return Job(
        f"profile/{kind}/{size}/{batch}/{name}",
        seconds,
        lambda _: profile_step(mode, size, batch, name, setup),
    )


def _program_jobs(setup: Setup, work: Path) -> Iterator[Job]:
    base, large = ("micro", "micro") if setup.micro else ("base", "large")
    if setup.micro:
        yield Job("engine/micro", 5, lambda _: measure_engine("train", "micro", 4, setup))
        yield Job("engine/micro_mae", 5, lambda _: measure_engine("mae", "micro", 4, setup))
    yield _trainer("mae", base, "pyav", "model", setup, work)
    if not setup.micro:
        yield _trainer("train", large, "pyav", "model", setup, work)
        optim = partial(measure, "mae", "base", 32, ["ours", "optim+graph"], setup)
        yield Job("mae/base/32+optim_graph", 80, lambda _: optim())
    yield Job(
        "demo",
        60,
        lambda left: run_demo(setup, work, timeout=left if setup.micro else min(200, left)),
    )
    if not setup.micro:
        yield _trainer("mae", base, "pyav", "worker", setup, work)
        yield _trainer("train", large, "pyav", "worker", setup, work)
        yield _trainer("mae", base, "decord", "model", setup, work)
        yield _trainer("mae", base, "torchcodec", "model", setup, work)


def _trainer(
    mode: Mode, size: str, decoder: Decoder, place: Place, setup: Setup, work: Path
) -> Job:
    kind = {"train": "fine_tune", "mae": "mae"}[mode]
    run = partial(
        measure_trainer, mode, size, decoder=decoder, device=place, setup=setup, work=work
    )
    name = f"trainer/{kind}/{size}/{decoder}/{place}"
    return Job(name, 25, lambda left: run(timeout=left if setup.micro else min(120, left)))


def _more_jobs(setup: Setup) -> Iterator[Job]:
    yield _job("mae", "large", 32, EAGER, 20, setup)
    yield _job("model", "base", 32, COMPILED, 35, setup)
    yield _profile("model", "base", 32, "ours+compile", 25, setup)
    yield Job("engine/large", 25, lambda _: measure_engine("train", "large", 16, setup))
    yield _job("mae", "base", 32, "ours ours+conv ours+sdpa ours+conv+sdpa", 12, setup)
    yield _job("train", "base", 16, "ours ours+conv ours+sdpa", 12, setup)
    kernels = partial(run_script, "gpu_kernels.py", "--minutes", "1", setup=setup)
    yield Job("kernels", 60, lambda left: kernels(timeout=min(90, left)))
    for batch in (1, 8):
        yield _job("model", "base", batch, SERVED, 12, setup)
        yield _job("model", "large", batch, SERVED, 15, setup)
    yield _job("train", "base", 32, "ours", 10, setup)
    yield _job("train", "large", 16, "ours", 12, setup)
    yield _job("train", "large", 32, "ours", 15, setup)
    yield _job("mae", "base", 128, "ours", 12, setup)
    yield _job("model", "base", 32, "ours ours+conv ours+sdpa", 12, setup)
    yield _job("mae", "large", 32, "ours+compile ours", 90, setup)


def _micro_jobs(setup: Setup) -> Iterator[Job]:
    yield _job("model", "micro", 2, "ours ours+autocast ours+sdpa ours+conv reference", 2, setup)
    yield _job("train", "micro", 2, "ours reference optim", 2, setup)
    yield _job("mae", "micro", 2, "ours ours+conv reference optim", 2, setup)
    yield _profile("mae", "micro", 2, "ours", 2, setup)


def run_job(job: Job, left: float) -> dict[str, Any]:
    """Run a case; return its result or its error, with the seconds it `took`."""
    began = time.monotonic()
    try:
        found = job.run(left)
    except Exception as error:  # recorded; the other cases run
        found = {"error": describe(error)}
    return {**found, "took": round(time.monotonic() - began, 1)}


def is_usable(setup: Setup) -> bool:
    """Free memory; return False if a fault, such as an illegal access, ended the CUDA context."""
    try:
        if setup.on_gpu:
            torch.cuda.synchronize()
        free_memory(setup)
    except RuntimeError:
        return False
    return True


def restart(argv: Sequence[str], minutes: float) -> NoReturn:
    """Replace this process by one that runs the rest."""
    print("the CUDA context is lost: the rest runs in another process", flush=True)
    rest = ["--resume", "--keep-errors", "--minutes", f"{minutes:.2f}"]
    os.execv(sys.executable, [sys.executable, __file__, *argv, *rest])


def has_result(case: dict[str, Any] | None, *, keep_errors: bool) -> bool:
    """Return True if a case need not run again."""
    if case is None or isinstance(case.get("skipped"), str):
        return False
    return keep_errors or not ("error" in case or case.get("not_run"))


def has_failed(case: dict[str, Any]) -> bool:
    """Return True for an error, and for tests that failed or were not run."""
    return bool("error" in case or case.get("failed") or case.get("not_run"))


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the name and memory of the GPU and the versions of its software."""
    if device.type != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def read(path: Path, device: dict[str, Any]) -> dict[str, Any]:
    """Read the results so far; empty if there are none.

    Those of another GPU or torch are kept beside them, under another name.
    """
    if not path.exists():
        return {"cases": {}}
    result: dict[str, Any] = json.loads(path.read_text())
    before = (result["device"]["name"], result["versions"].get("torch"))
    if before == (device["name"], facts(PACKAGES)["versions"].get("torch")):
        return result
    name = "_".join(re.findall(r"\w+", f"{before[0]} torch {before[1]} {result['date']}"))
    other = path.with_name(f"{path.stem}_{name}.json")
    path.rename(other)
    print(f"{path}: is of {before[0]} with torch {before[1]}: kept as {other}")
    return {"cases": {}}


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the results, whole, under their name."""
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps({**result, **facts(PACKAGES)}, indent=1) + "\n")
    partial_file.replace(path)


if __name__ == "__main__":
    sys.exit(main())
