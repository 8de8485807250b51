"""Compare speed and memory with other packages and with a lower bound of the same computation.

    hiera-video benchmark model --size tiny base         # inference
    hiera-video benchmark model --images --size base     # image models, also timm, transformers
    hiera-video benchmark train --size base              # a fine-tuning step
    hiera-video benchmark mae --size base                # a masked pre-training step
    hiera-video benchmark mae --clock cpu --rounds 2     # a quick look on a busy machine

All implementations run in one process with the same weights. Their results are compared first; then
each runs once a round, and ratios are taken within a round. The lower bound is the model's matrix
products and attention alone, timed in the same rounds. Peak memory is
measured in a separate process. `pip install 'hiera-video[bench]'` adds the other packages; missing
ones are skipped. Rows are written to --out, unless --clock is cpu. The exit code is 1 if an
implementation computes something else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speed_case import Case
    from speed_lower_bound import LowerBound
    from speed_measure import MachineLimits

SIZES = ("micro", "tiny", "small", "base", "base_plus", "large", "huge")
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""Largest relative difference of probabilities, loss and gradients that counts as equal."""


def positive(text: str) -> int:
    """Read a count of a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Build the parser without importing torch, so that --help returns at once."""
    made = argparse.ArgumentParser(
        prog="hiera-video benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "mode",
        choices=("model", "train", "mae"),
        help="inference, fine-tuning step, pre-training step",
    )
    made.add_argument("--size", nargs="+", choices=SIZES, default=["base"])
    made.add_argument("--images", action="store_true", help="image models instead of video models")
    made.add_argument("--frames", nargs="+", type=positive, default=[16], help="frames a clip")
    made.add_argument(
        "--resolution", nargs="+", type=positive, default=[224], help="height and width in pixels"
    )
    made.add_argument(
        "--batch", nargs="+", type=positive, default=[1], help="clips, or images, a step"
    )
    made.add_argument("--dtype", nargs="+", choices=tuple(TOLERANCE), default=["float32"])
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile for ours, the reference and hiera-optim",
    )
    made.add_argument(
        "--threads", type=positive, help="CPU threads; default: all cores, or one with --clock cpu"
    )
    made.add_argument("--rounds", type=positive, default=5, help="number of timed runs of each")
    made.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: CPU time of the process, with one thread",
    )
    made.add_argument(
        "--only", nargs="+", metavar="NAME", help="besides ours, such as reference optim floor"
    )
    made.add_argument("--no-memory", action="store_true", help="skip the peak memory")
    made.add_argument(
        "--out",
        type=Path,
        help="file for the rows; default: speed.json, in a checkout benchmarks/results/speed.json",
    )
    return made


def main(argv: list[str]) -> int:
    """Measure every combination of the arguments."""
    arguments = parser().parse_args(argv)
    import torch
    from speed_case import Case
    from speed_rows import add_row

    threads = 1 if arguments.clock == "cpu" else arguments.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    axes = (
        arguments.size,
        arguments.frames,
        arguments.resolution,
        arguments.batch,
        arguments.dtype,
    )
    same = True
    for size, frames, resolution, batch, dtype in itertools.product(*axes):
        case = Case(
            mode=arguments.mode,
            size=size,
            images=arguments.images,
            frames=frames,
            resolution=resolution,
            batch=batch,
            dtype=dtype,
            device=arguments.device,
            compiled=arguments.compile,
        )
        row = measure(case, arguments, threads)
        same &= not row["differs"]
        if arguments.out or arguments.clock == "wall":
            print(add_row("speed", row, arguments.out))
    return int(not same)


def measure(case: Case, arguments: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Compare, time and print one case; return its row of results."""
    import torch
    from speed_case import DTYPES
    from speed_measure import machine_limits, peak_memory, ratios, summarise, time_in_turns
    from speed_packages import missing_package
    from speed_rows import print_row

    names = requested(case, arguments.only)
    absent = {name: package for name in names if (package := missing_package(name))}
    names = [name for name in names if name not in absent]
    runs, found = prepare(case, names)
    if arguments.only:
        runs = {name: run for name, run in runs.items() if name in ("ours", *arguments.only)}
    limits = machine_limits(DTYPES[case.dtype], case.device)
    seconds = time_in_turns(runs | limits.runs, arguments.rounds, arguments.clock, case.device)
    limit_seconds = {name: seconds.pop(name) for name in limits.runs}
    rates = utilisation(case, limits, limit_seconds, seconds["ours"])
    del runs, limits
    if case.device == "cuda":
        torch.cuda.empty_cache()  # for the processes that measure memory
    measured = [] if arguments.no_memory else names
    row = {
        "case": vars(case) | {"threads": threads, "clock": arguments.clock},
        "rounds": arguments.rounds,
        "seconds": {name: summarise(values) for name, values in seconds.items()},
        "times_ours": ratios(seconds, "ours"),
        "times_floor": ratios(seconds, "floor") if "floor" in seconds else {},
        **rates,
        "differences": found,
        "differs": {name: far for name, far in found.items() if not far <= TOLERANCE[case.dtype]},
        "absent": absent,
        "memory": {name: peak_memory(name, case, threads) for name in measured},
    }
    print_row(row)
    return row


def requested(case: Case, only: list[str] | None) -> list[str]:
    """Return the implementations that can run the case, and with `only` are named there."""
    from speed_implementations import implementations_for

    return [name for name in implementations_for(case) if not only or name in ("ours", *only)]


def prepare(case: Case, names: list[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Build implementations and lower bounds; return functions to time, and the differences."""
    import torch
    from speed_implementations import build
    from speed_measure import differences

    torch.compiler.reset()  # the limit of compiled variants is one for all cases of a process
    implementations = {"ours": build("ours", case)}
    state = implementations["ours"].model.state_dict()
    implementations |= {name: build(name, case, state) for name in names if name != "ours"}
    found = differences(implementations, "ours")
    bounds = lower_bounds(case, half="ours_half" in names)
    runs = {name: implementation.step for name, implementation in implementations.items()}
    return {**runs, **{name: bound.run for name, bound in bounds.items()}}, found


def utilisation(
    case: Case,
    limits: MachineLimits,
    limit_seconds: dict[str, list[float]],
    seconds: list[float],
) -> dict[str, Any]:
    """Return the work of a step, and its rates relative to the machine's limits."""
    from speed_case import DTYPES
    from speed_lower_bound import layers_of, total_macs, total_values
    from speed_measure import summarise

    layers, backward = layers_of(case.config, case.mae()), case.mode != "model"
    macs = case.batch * total_macs(layers, backward)
    moved = case.batch * total_values(layers, backward) * DTYPES[case.dtype].itemsize
    product, copy = (
        summarise([a / b for a, b in zip(limit_seconds[name], seconds)])["median"]
        for name in ("product", "copy")
    )
    onednn = case.device == "cpu" and case.dtype == "float32"
    return {
        "macs": macs,
        "floor_products": "torch.mm or oneDNN" if onednn else "torch.mm",
        "mfu": round(macs / limits.macs * product, 3),
        "bytes_over_copy": round(moved / limits.bytes * copy, 3),
    }


def lower_bounds(case: Case, *, half: bool) -> dict[str, LowerBound]:
    """Build the lower bound of a case as `floor`, with `half` also that of the half decoder."""
    import torch
    from speed_case import DTYPES
    from speed_lower_bound import LowerBound, layers_of

    settings = (case.batch, DTYPES[case.dtype], torch.device(case.device), case.mode != "model")
    bounds = {"floor": LowerBound(layers_of(case.config, case.mae()), *settings)}
    if half:
        half_layers = layers_of(case.config, case.mae(half=True))
        bounds["floor_half"] = LowerBound(half_layers, *settings)
    return bounds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
