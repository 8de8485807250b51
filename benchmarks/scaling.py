"""Time and memory of a step against frames, resolution, batch and size.

    python benchmarks/scaling.py                   # inference, base; ten minutes on two idle cores
    python benchmarks/scaling.py --mode train --axes frames --rounds 1
    python benchmarks/scaling.py --axes frames resolution --size tiny --rounds 1 --no-memory \\
        --out look.json

Varies one axis at a time, from one clip of 16x224. Beside ours, the lower bound is timed, and of it
the attention over the whole clip alone (stage 3, and the first block of stage 4), which grows with
the square of the clip's length. Rows are written to `results/scaling.json`; `speed_page.py` plots
them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed import SIZES

if TYPE_CHECKING:
    from speed_case import Case

AXES: dict[str, tuple[Any, ...]] = {
    "frames": (8, 16, 32, 64),
    "resolution": (128, 192, 224, 288, 320),
    "batch": (1, 2, 4, 8),
    "size": ("tiny", "small", "base", "base_plus", "large", "huge"),
}


def main(argv: list[str]) -> int:
    """Measure every point of the axes."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--mode", choices=("model", "train", "mae"), default="model")
    made.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    made.add_argument(
        "--size", choices=SIZES, default="base", help="for the axes that do not vary it"
    )
    made.add_argument(
        "--resolution", type=int, default=224, help="for the axes that do not vary it"
    )
    made.add_argument("--most", type=int, help="number of points of an axis, smallest first")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--threads", type=int, help="default: all cores, or one with --clock cpu")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    made.add_argument("--no-memory", action="store_true")
    made.add_argument("--out", type=Path, help="file for the rows; default: results/scaling.json")
    arguments = made.parse_args(argv)
    import torch
    from speed_case import Case
    from speed_rows import add_row

    threads = 1 if arguments.clock == "cpu" else arguments.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    done: list[dict[str, Any]] = []
    print(
        f"{'':34}{'GMACs':>8}{'seconds':>9}{'bound':>9}"
        f"{'attention: MACs':>17}{'time':>7}{'peak GB':>9}"
    )
    for axis in arguments.axes:
        for value in AXES[axis][: arguments.most]:
            own = {"size": arguments.size, "resolution": arguments.resolution, axis: value}
            case = Case(mode=arguments.mode, dtype=arguments.dtype, device=arguments.device, **own)
            if vars(case) in done:
                continue
            done.append(vars(case))
            row = measure(case, arguments, threads)
            name = f"{case.size} {case.frames}x{case.resolution}, batch {case.batch}"
            memory = f"{row['memory']['peak']:9.2f}" if row["memory"] else ""
            print(
                f"{name:34}{row['macs'] / 1e9:8.0f}{row['seconds']['ours']['median']:9.3g}"
                f"{row['seconds']['floor']['median']:9.3g}{100 * row['attention_macs']:15.1f} %"
                f"{100 * row['attention_time']:5.1f} %{memory}",
                flush=True,
            )
            if arguments.out or arguments.clock == "wall":
                add_row("scaling", row, arguments.out)
    return 0


def measure(case: Case, arguments: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Measure one point and return its row of results."""
    import torch
    from speed_case import DTYPES
    from speed_implementations import build
    from speed_lower_bound import Attention, LowerBound, layers_of, total_macs
    from speed_measure import peak_memory, summarise, time_in_turns

    backward = case.mode != "model"
    layers = layers_of(case.config, case.mae())
    whole = [layer for layer in layers if isinstance(layer, Attention) and layer.whole]
    settings = (case.batch, DTYPES[case.dtype], torch.device(case.device), backward)
    runs = {
        "ours": build("ours", case).step,
        "floor": LowerBound(layers, *settings).run,
        "attention": LowerBound(whole, *settings).run,
    }
    seconds = time_in_turns(runs, arguments.rounds, arguments.clock, case.device)
    del runs
    attention_time = [a / b for a, b in zip(seconds["attention"], seconds["ours"])]
    return {
        "case": vars(case) | {"threads": threads, "clock": arguments.clock},
        "rounds": arguments.rounds,
        "macs": case.batch * total_macs(layers, backward),
        "seconds": {name: summarise(values) for name, values in seconds.items()},
        "attention_macs": round(total_macs(whole, backward) / total_macs(layers, backward), 4),
        "attention_time": round(summarise(attention_time)["median"], 4),
        "memory": {} if arguments.no_memory else peak_memory("ours", case, threads),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
