"""Accuracy with and without masked pre-training, for the same short fine-tuning and three seeds.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/pretraining_helps.py                     # half an hour on two idle cores

Each seed pre-trains on the training videos without labels, then trains from scratch and from these
weights, with two recipes each: one suits training from scratch, the other pre-trained weights. The
gain is the difference in multi-view accuracy between each kind's better recipe.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from record import record

ROOT = Path(__file__).parents[1]
RECIPES = {  # the best of a search on seed 0, see pretraining_why.py
    "lr 1e-3": ["optim.lr=1e-3"],
    "lr 4e-3, layer decay 0.6": ["optim.lr=4e-3", "optim.layer_decay=0.6"],
}
KINDS = ("scratch", "pretrained")


def main() -> None:
    """Run the missing trainings, record the results and plot the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="data/motion_hard", help="the motion set's harder variant"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--budget", type=int, default=2, help="epochs of fine-tuning, the same for both"
    )
    parser.add_argument(
        "--runs", default="runs/pretraining_helps", help="folder of runs; finished ones are kept"
    )
    parser.add_argument("--out", type=Path, help="output file instead of results/")
    arguments = parser.parse_args()
    rows = [one_seed(seed, arguments) for seed in arguments.seeds]
    best = {
        kind: max(RECIPES, key=lambda recipe: mean(row["top1"][kind][recipe] for row in rows))
        for kind in KINDS
    }
    gains = [
        row["top1"]["pretrained"][best["pretrained"]] - row["top1"]["scratch"][best["scratch"]]
        for row in rows
    ]
    result = {
        "what": f"top-1 on {arguments.data} from scratch and after masked pre-training; trained "
        f"for {arguments.budget} epochs with each recipe; the gain is between each kind's better "
        "recipe",
        "command": " ".join(["python", *sys.argv]),
        "budget": arguments.budget,
        "recipes": RECIPES,
        "seeds": rows,
        "better_recipe": best,
        "gains": [round(gain, 2) for gain in gains],
        "mean_gain": round(mean(gains), 2),
    }
    print(record("pretraining_helps", result, arguments.out))
    if arguments.out is None:
        draw(rows, best)


def one_seed(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pre-train once and train each kind with each recipe.

    Returns:
        Top-1 in percent and the training loss curves, by kind and recipe.
    """
    data = [f"data.train={arguments.data}/train.csv", f"data.val={arguments.data}/val.csv"]
    masked = f"{arguments.runs}/mae_{seed}"
    pretraining = [*data, f"seed={seed}", f"out_dir={masked}", "train.eval_every=2"]
    run_tool("train_net.py", "configs/motion_hard_hiera_micro_mae.yaml", *pretraining)
    row: dict[str, Any] = {
        "seed": seed,
        "pretraining_loss": curve(masked, "loss"),
        "top1": {},
        "curves": {},
    }
    for kind in KINDS:
        row["top1"][kind], row["curves"][kind] = {}, {}
        for number, (recipe, overrides) in enumerate(RECIPES.items()):
            run = f"{arguments.runs}/{kind}_{number}_{seed}"
            common = [
                *data,
                *overrides,
                f"seed={seed}",
                f"out_dir={run}",
                f"train.epochs={arguments.budget}",
                "optim.warmup_epochs=0.4",
                "train.eval_every=1",
                f"model.pretrained={masked if kind == 'pretrained' else 'none'}",
            ]
            run_tool("train_net.py", "configs/motion_hiera_micro.yaml", *common)
            run_tool("test_net.py", "configs/motion_hiera_micro.yaml", *common)
            row["top1"][kind][recipe] = round(
                json.loads((ROOT / run / "results.json").read_text())["top1"], 2
            )
            row["curves"][kind][recipe] = losses(run)
    print(row["seed"], row["top1"], flush=True)
    return row


def draw(rows: list[dict[str, Any]], best: dict[str, str]) -> None:
    """Plot each seed's training loss and final accuracy to `results/pretraining_helps.png`."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), width_ratios=(2, 1))
    for kind, colour in zip(KINDS, ("tab:grey", "tab:blue")):
        for row in rows:
            steps, values = zip(*row["curves"][kind][best[kind]])
            left.plot(
                steps,
                values,
                color=colour,
                alpha=0.7,
                label=f"{kind}: {best[kind]}" if row is rows[0] else None,
            )
            right.plot(row["seed"], row["top1"][kind][best[kind]], "o", color=colour)
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    left.legend(fontsize=8)
    right.set(
        xlabel="seed",
        ylabel="top-1, 2×3 views",
        xticks=[row["seed"] for row in rows],
        ylim=(0, 100),
    )
    figure.tight_layout()
    figure.savefig(ROOT / "benchmarks" / "results" / "pretraining_helps.png", dpi=120)


def run_tool(name: str, config: str, *overrides: str) -> None:
    """Launch a tool; a finished run returns at once."""
    subprocess.run(
        [sys.executable, f"tools/{name}", "--cfg", config, *overrides], cwd=ROOT, check=True
    )


def curve(run: str, name: str) -> list[float]:
    """Return a metric of each validation."""
    return [round(row[name], 4) for row in metrics(run) if row["split"] == "val"]


def losses(run: str) -> list[tuple[int, float]]:
    """Return (step, training loss) of each logged step."""
    return [(row["step"], round(row["loss"], 3)) for row in metrics(run) if row["split"] == "train"]


def metrics(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / run / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
