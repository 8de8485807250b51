"""Pre-train and fine-tune a micro Hiera on generated videos; compare with training from scratch.

hiera-video demo                      # in this folder: data/ and runs/; minutes on two CPU cores
hiera-video demo --quick output=try   # a few videos and epochs, to check an installation

The last two lines compare two epochs of fine-tuning from masked pre-training with two epochs from
scratch. The line before is the pre-trained one after three more epochs at a higher resolution. The
same command resumes after an interruption and reuses what is complete.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import command_parser, refuse_rest, single, split_paths
from hiera_video.cli.main import run_command
from hiera_video.utils.extras import require_extra

MAE, FINE_TUNED = "motion_hard_hiera_micro_mae", "motion_hard_hiera_micro"
SCRATCH, PRETRAINED = "motion_hard_scratch", "motion_hard_pretrained"
"""Runs of two epochs, with the same recipe."""
TWO_EPOCHS = ["train.epochs=2", "optim.warmup_epochs=0.4"]
FINER = [
    *("model.input_size=[16,48,48]", "train.epochs=3", "optim.warmup_epochs=0.4"),
    "train.eval_every=3",
]
"""At 32 pixels a turning object is two tokens wide: which way it turns cannot be learned."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("demo", __doc__)
    parser.add_argument(
        "paths", nargs="*", metavar="output=DIR", help="folder for data/ and runs/ (this one)"
    )
    parser.add_argument("--quick", action="store_true", help="a few videos and epochs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands of the demo one after another; stop at the first that fails."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    refuse_rest([*inputs, *rest], "give output=DIR")
    require_extra("train")
    require_extra("demo")
    folder = Path(single(outputs, "output", "output=") or ".")
    for command in commands(folder, quick=arguments.quick, seed=arguments.seed):
        print(f"$ hiera-video {shlex.join(command)}", flush=True)
        if code := run_command(command):
            return code
    print("\n".join(summary(folder / "runs", quick=arguments.quick)))
    return 0


def commands(folder: Path, *, quick: bool, seed: int) -> list[list[str]]:
    """Return the commands of the demo, without `hiera-video`."""
    data = folder / "data" / _name("motion_hard", quick)
    runs = folder / "runs"
    mae, finest = (runs / _name(name, quick) for name in (MAE, FINE_TUNED))
    few, quicker, views = [], [], []
    if quick:
        few, quicker = ["--clips-per-class", "12"], ["train.epochs=2", "optim.warmup_epochs=1"]
        views = ["test.clips=1", "test.crops=1"]

    def train(config: str, run: Path, start: Path | None, keys: list[str]) -> list[str]:
        weights = [f"model.pretrained={start}"] if start else []
        lists = [f"data.train={data / 'train.csv'}", f"data.val={data / 'val.csv'}"]
        return ["train", "--cfg", config, *weights, *lists, f"out_dir={run}", f"seed={seed}", *keys]

    scratch, pretrained = (runs / _name(name, quick) for name in (SCRATCH, PRETRAINED))
    return [
        ["prepare", "motion", f"output={data}", "--hard", *few],
        train(MAE, mae, None, quicker),
        train(FINE_TUNED, scratch, None, TWO_EPOCHS),
        ["test", "--run", str(scratch), *views],
        train(FINE_TUNED, pretrained, mae, TWO_EPOCHS),
        ["test", "--run", str(pretrained), *views],
        [
            *("test", "--compare", str(scratch / "results.json")),
            *(str(pretrained / "results.json"), "--page", str(_page(runs, quick))),
        ],
        train(FINE_TUNED, finest, pretrained, FINER),
        ["test", "--run", str(finest), *views],
    ]


def summary(runs: Path, *, quick: bool) -> list[str]:
    """Return the last lines of the demo: where the pages are, and the accuracies."""
    mae, finest, *short = (
        runs / _name(name, quick) for name in (MAE, FINE_TUNED, PRETRAINED, SCRATCH)
    )
    lines = [
        f"reconstructions: {mae / 'reconstructions' / 'latest.png'}",
        f"report: {finest / 'report.html'}",
        f"comparison: {_page(runs, quick)}",
        f"pre-trained, then three epochs at 48×48 pixels: {_accuracy(finest)}",
    ]
    for name, run in zip(("pre-trained, ", "from scratch,"), short):
        lines.append(f"{name} two epochs: {_accuracy(run)}")
    return lines


def _accuracy(run: Path) -> str:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    low, high = results["intervals"]["top1"]
    return (
        f"{results['top1']:.1f} % top-1 (95 % interval {low:.1f} to {high:.1f}), "
        f"{results['views']} views of {results['evaluated']} videos"
    )


def _page(runs: Path, quick: bool) -> Path:
    return runs / f"{_name('motion_comparison', quick)}.html"


def _name(name: str, quick: bool) -> str:
    return f"{name}_quick" if quick else name
