"""Does masked pre-training help? Fine-tuning from it against training from scratch, same short budget, three seeds.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/pretraining_helps.py

Each seed pre-trains on the videos of the training split without labels, then fine-tunes twice with the same command but
for `model.pretrained`; accuracy is the multi-view test's on held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from record import record

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run what is missing, record all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/motion_hard", help="the motion set's harder variant")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrain-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4, help="passes of fine-tuning, for both")
    parser.add_argument("--runs", default="runs/pretraining_helps")
    arguments = parser.parse_args()
    data = [f"data.train={arguments.data}/train.csv", f"data.val={arguments.data}/val.csv"]
    rows = []
    for seed in range(arguments.seeds):
        masked = f"{arguments.runs}/mae_{seed}"
        tool("train_net.py", "configs/motion_hard_hiera_micro_mae.yaml", *data, f"seed={seed}", f"out_dir={masked}",
             f"train.epochs={arguments.pretrain_epochs}", "train.eval_every=2")  # fmt: skip
        row: dict[str, object] = {"seed": seed, "pretraining_loss": curve(masked, "loss")[-1]}
        for kind, weights in (("scratch", "none"), ("pretrained", masked)):
            run = f"{arguments.runs}/{kind}_{seed}"
            common = [*data, f"seed={seed}", f"out_dir={run}", f"train.epochs={arguments.epochs}"]
            tool("train_net.py", "configs/motion_hiera_micro.yaml", *common, f"model.pretrained={weights}")
            tool("test_net.py", "configs/motion_hiera_micro.yaml", *common)
            row[kind] = json.loads((ROOT / run / "results.json").read_text())["top1"]
            row[f"{kind}_curve"] = curve(run, "top1")
        rows.append(row)
        print(row)
    gains = [row["pretrained"] - row["scratch"] for row in rows]  # type: ignore[operator]
    result = {
        "what": f"top-1 on {arguments.data}: {arguments.epochs} passes from scratch and after masked pre-training",
        "command": " ".join(["python", *sys.argv]),
        "pretrain_epochs": arguments.pretrain_epochs,
        "epochs": arguments.epochs,
        "seeds": rows,
        "mean_gain": mean(gains),
        "smallest_gain": min(gains),
    }
    print(record("pretraining_helps", result))


def tool(name: str, config: str, *overrides: str) -> None:
    """A tool, as a user starts it; a finished run returns at once."""
    subprocess.run([sys.executable, f"tools/{name}", "--cfg", config, *overrides], cwd=ROOT, check=True)


def curve(run: str, name: str) -> list[float]:
    """A validation number after each pass."""
    rows = map(json.loads, (ROOT / run / "metrics.jsonl").read_text().splitlines())
    return [round(row[name], 4) for row in rows if row["split"] == "val"]


if __name__ == "__main__":
    main()
