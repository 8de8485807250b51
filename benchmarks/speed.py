"""How fast ours is: against the authors' package, against that with hiera-optim, and against the machine's floor.

    python tools/benchmark.py model --size tiny base              # inference
    python tools/benchmark.py model --images --size base          # image models, against timm and transformers too
    python tools/benchmark.py train --size base                   # a fine-tuning step: forward and backward
    python tools/benchmark.py mae --size base                     # a masked pre-training step, 0.9 hidden
    python tools/benchmark.py mae --size base --clock cpu --rounds 2   # a look, on a machine that others use

All run in one process with the same weights, their results are compared first, then they take turns; a ratio is that of
two times of one round. The floor is bare matrix products and attention of the model's shapes (`speed_floor.py`), which
take their turn too. Peak memory is of a process of its own. `make bench` installs the rivals; who is not there is left
out. Results go to `results/speed.json`, a row a case, and `speed_page.py` makes docs/speed.md from them; with --clock cpu
they are only printed. Exit code 1 where a rival computes something else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speed_contestants import Case

SIZES = ("micro", "tiny", "small", "base", "base_plus", "large", "huge")
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""Largest relative difference of probabilities, loss and gradients that is still the same computation."""


def parser() -> argparse.ArgumentParser:
    """No torch yet: --help answers at once."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "mode",
        choices=("model", "train", "mae"),
        help="inference, fine-tuning step, pre-training step",
    )
    made.add_argument("--size", nargs="+", choices=SIZES, default=["base"])
    made.add_argument("--images", action="store_true", help="image models instead of video models")
    made.add_argument("--frames", nargs="+", type=int, default=[16], help="frames a clip")
    made.add_argument(
        "--resolution", nargs="+", type=int, default=[224], help="height and width in pixels"
    )
    made.add_argument("--batch", nargs="+", type=int, default=[1], help="clips, or images, a step")
    made.add_argument("--dtype", nargs="+", choices=tuple(TOLERANCE), default=["float32"])
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile for ours, the reference and hiera-optim",
    )
    made.add_argument(
        "--threads", type=int, help="of a CPU; all cores where not given, one with --clock cpu"
    )
    made.add_argument("--rounds", type=int, default=5, help="times that each takes its turn")
    made.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the process's own time, one thread",
    )
    made.add_argument(
        "--only", nargs="+", metavar="NAME", help="ours and these, such as reference optim floor"
    )
    made.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    made.add_argument("--out", type=Path, help="where the rows go instead")
    return made


def main(argv: list[str]) -> int:
    """Measure every combination of what was asked for."""
    arguments = parser().parse_args(argv)
    import torch
    from speed_contestants import Case
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
    """One case: compare, take turns, weigh, print."""
    import torch
    from speed_contestants import DTYPES, make, names_for
    from speed_floor import Floor, layers_of, total_macs, total_values
    from speed_measure import differences, in_turns, peak_memory, ratios, spread, yardsticks
    from speed_rivals import missing
    from speed_rows import print_row

    torch.compiler.reset()  # its limit of compiled variants holds for all cases of a process together
    wanted = [
        name for name in names_for(case) if not arguments.only or name in ("ours", *arguments.only)
    ]
    absent = {name: package for name in wanted if (package := missing(name))}
    names = [name for name in wanted if name not in absent]
    contestants = {"ours": make("ours", case)}
    state = contestants["ours"].model.state_dict()
    contestants |= {name: make(name, case, state) for name in names if name != "ours"}
    found = differences(contestants, "ours")
    backward, dtype, device = case.mode != "model", DTYPES[case.dtype], torch.device(case.device)
    layers = layers_of(case.config, case.mae())
    runs: dict[str, Any] = {name: contestant.step for name, contestant in contestants.items()}
    runs["floor"] = Floor(layers, case.batch, dtype, device, backward).run
    if "ours_half" in names:
        runs["floor_half"] = Floor(
            layers_of(case.config, case.mae(half=True)), case.batch, dtype, device, backward
        ).run
    if arguments.only:
        runs = {name: run for name, run in runs.items() if name in ("ours", *arguments.only)}
    machine = yardsticks(dtype, case.device)
    seconds = in_turns(runs | machine.runs, arguments.rounds, arguments.clock, case.device)
    shares = {
        name: [a / b for a, b in zip(seconds.pop(name), seconds["ours"])] for name in machine.runs
    }
    macs = case.batch * total_macs(layers, backward)
    moved = case.batch * total_values(layers, backward) * dtype.itemsize
    mfu = macs / machine.macs * spread(shares["product"])["median"]
    over_copy = moved / machine.bytes * spread(shares["copy"])["median"]
    del runs, contestants, state, machine
    if case.device == "cuda":
        torch.cuda.empty_cache()  # the processes whose memory is measured need it
    row = {
        "case": vars(case) | {"threads": threads, "clock": arguments.clock},
        "rounds": arguments.rounds,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "times_ours": ratios(seconds, "ours"),
        "times_floor": ratios(seconds, "floor") if "floor" in seconds else {},
        "macs": macs,
        "floor_products": "torch.mm or oneDNN"
        if case.device == "cpu" and case.dtype == "float32"
        else "torch.mm",
        "mfu": round(mfu, 3),
        "bytes_over_copy": round(over_copy, 3),
        "differences": found,
        "differs": {name: far for name, far in found.items() if not far <= TOLERANCE[case.dtype]},
        "absent": absent,
        "memory": {}
        if arguments.no_memory
        else {name: peak_memory(name, case, threads) for name in names},
    }
    print_row(row)
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
