"""What a clip costs as it grows: time and memory against frames, resolution, batch and size; where attention takes over.

    python benchmarks/scaling.py                     # inference, base; ten minutes on two idle cores
    python benchmarks/scaling.py --mode train --axes frames --rounds 1
    python benchmarks/scaling.py --axes frames resolution --size tiny --rounds 1 --no-memory --out look.json

One axis at a time from 16x224, one clip. Beside ours run its floor and, of that, attention over the whole clip alone
(stage 3, and the first block of stage 4), which grows with the square of the clip. Rows go to `results/scaling.json`;
`speed_page.py` draws them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speed import SIZES

if TYPE_CHECKING:
    from speed_contestants import Case

AXES: dict[str, tuple[Any, ...]] = {
    "frames": (8, 16, 32, 64),
    "resolution": (128, 192, 224, 288, 320),
    "batch": (1, 2, 4, 8),
    "size": ("tiny", "small", "base", "base_plus", "large", "huge"),
}


def main(argv: list[str]) -> int:
    """Measure each axis."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--mode", choices=("model", "train", "mae"), default="model")
    made.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    made.add_argument(
        "--size", choices=SIZES, default="base", help="of the axes that do not change it"
    )
    made.add_argument(
        "--resolution", type=int, default=224, help="of the axes that do not change it"
    )
    made.add_argument("--most", type=int, help="how many points of an axis, from the small end")
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--threads", type=int, help="all cores where not given, one with --clock cpu")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    made.add_argument("--no-memory", action="store_true")
    made.add_argument("--out", type=Path, help="where the rows go instead")
    arguments = made.parse_args(argv)
    import torch
    from speed_contestants import Case
    from speed_rows import add_row

    threads = 1 if arguments.clock == "cpu" else arguments.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    done: list[dict[str, Any]] = []
    print(
        f"{'':34}{'GMACs':>8}{'seconds':>9}{'floor':>9}{'attention: MACs':>17}{'time':>7}{'peak GB':>9}"
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
    """One point."""
    import torch
    from speed_contestants import DTYPES, make
    from speed_floor import Attention, Floor, layers_of, total_macs
    from speed_measure import in_turns, peak_memory, spread

    backward = case.mode != "model"
    layers = layers_of(case.config, case.mae())
    whole = [layer for layer in layers if isinstance(layer, Attention) and layer.whole]
    settings = (case.batch, DTYPES[case.dtype], torch.device(case.device), backward)
    runs = {
        "ours": make("ours", case).step,
        "floor": Floor(layers, *settings).run,
        "attention": Floor(whole, *settings).run,
    }
    seconds = in_turns(runs, arguments.rounds, arguments.clock, case.device)
    del runs
    return {
        "case": vars(case) | {"threads": threads, "clock": arguments.clock},
        "rounds": arguments.rounds,
        "macs": case.batch * total_macs(layers, backward),
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "attention_macs": round(total_macs(whole, backward) / total_macs(layers, backward), 4),
        "attention_time": round(
            spread([a / b for a, b in zip(seconds["attention"], seconds["ours"])])["median"], 4
        ),
        "memory": {} if arguments.no_memory else peak_memory("ours", case, threads),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
