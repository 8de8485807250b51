"""Does masked pre-training help? Fine-tuning from it against training from scratch, the same short budget, three seeds.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/pretraining_helps.py                     # half an hour on two idle cores

Each seed pre-trains on the videos of the training split without labels, then fine-tunes with the same command but for
`model.pretrained`, once for each budget. The first budget is the question: its accuracy is the multi-view test's on
held-out pictures. The longer one shows what becomes of the difference: validation after each pass, one centre view.
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
RECIPE = ["optim.lr=1e-3", "optim.layer_decay=0.6", "optim.warmup_epochs=0.2", "train.eval_every=1"]
KINDS = ("scratch", "pretrained")


def main() -> None:
    """Run what is missing, record all, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/motion_hard", help="the motion set's harder variant")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrain-epochs", type=int, default=12)
    parser.add_argument("--budgets", type=int, nargs="+", default=[1, 3], help="passes of fine-tuning, for both alike")
    parser.add_argument("--runs", default="runs/pretraining_helps")
    arguments = parser.parse_args()
    data = [f"data.train={arguments.data}/train.csv", f"data.val={arguments.data}/val.csv"]
    rows = []
    for seed in range(arguments.seeds):
        masked = f"{arguments.runs}/mae_{seed}"
        tool("train_net.py", "configs/motion_hard_hiera_micro_mae.yaml", *data, f"seed={seed}", f"out_dir={masked}",
             f"train.epochs={arguments.pretrain_epochs}", "train.eval_every=2")  # fmt: skip
        row: dict[str, Any] = {"seed": seed, "pretraining_loss": curve(masked, "loss")}
        for budget in arguments.budgets:
            for kind in KINDS:
                run = f"{arguments.runs}/{kind}_{budget}_{seed}"
                weights = masked if kind == "pretrained" else "none"
                common = [*data, *RECIPE, f"seed={seed}", f"out_dir={run}", f"train.epochs={budget}",
                          f"model.pretrained={weights}"]  # fmt: skip
                tool("train_net.py", "configs/motion_hiera_micro.yaml", *common)
                row[f"{kind}_curve_{budget}"] = curve(run, "top1")
                if budget == arguments.budgets[0]:
                    tool("test_net.py", "configs/motion_hiera_micro.yaml", *common)
                    row[kind] = json.loads((ROOT / run / "results.json").read_text())["top1"]
        rows.append(row)
        print(row)
    gains = [row["pretrained"] - row["scratch"] for row in rows]
    result = {
        "what": f"top-1 on {arguments.data} from scratch and after masked pre-training; fine-tuned for "
        f"{arguments.budgets[0]} pass(es), the same recipe for both; curves of longer budgets beside it",
        "command": " ".join(["python", *sys.argv]),
        "pretrain_epochs": arguments.pretrain_epochs,
        "budgets": arguments.budgets,
        "recipe": RECIPE,
        "seeds": rows,
        "mean_gain": mean(gains),
        "smallest_gain": min(gains),
    }
    print(record("pretraining_helps", result))
    draw(rows, arguments.budgets)


def draw(rows: list[dict[str, Any]], budgets: list[int]) -> None:
    """`results/pretraining_helps.png`: every run's accuracy after each pass, a panel a budget."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(budgets), figsize=(4 * len(budgets), 3), sharey=True, squeeze=False)
    for panel, budget in zip(panels[0], budgets):
        for kind, colour in zip(KINDS, ("tab:grey", "tab:blue")):
            for row in rows:
                points = row[f"{kind}_curve_{budget}"]
                panel.plot(range(1, len(points) + 1), points, "o-", color=colour, alpha=0.7,
                           label=kind if row is rows[0] else None)  # fmt: skip
        panel.axhline(12.5, color="black", linewidth=0.5)
        panel.set(
            title=f"budget: {budget} pass{'es' if budget > 1 else ''}", xlabel="pass", xticks=range(1, budget + 1)
        )
    panels[0][0].set_ylabel("top-1, one view")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(ROOT / "benchmarks" / "results" / "pretraining_helps.png", dpi=120)


def tool(name: str, config: str, *overrides: str) -> None:
    """A tool, as a user starts it; a finished run returns at once."""
    subprocess.run([sys.executable, f"tools/{name}", "--cfg", config, *overrides], cwd=ROOT, check=True)


def curve(run: str, name: str) -> list[float]:
    """A validation number after each pass that has one."""
    rows = map(json.loads, (ROOT / run / "metrics.jsonl").read_text().splitlines())
    return [round(row[name], 4) for row in rows if row["split"] == "val"]


if __name__ == "__main__":
    main()
