"""Compare pre-training with all and with half of the hidden tokens decoded.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/decoder_half.py            # ten minutes on two idle cores

Trains configs/motion_hard_hiera_micro_mae.yaml with mae.decoder_tokens=all and =running_cell (half
of them), with the same seed, data and order. The validation loss of each run is over its own
decoded tokens. The micro size's decoder is too small for a gain in speed; `tools/benchmark.py mae`
measures that. Writes `results/decoder_half.json`, which `speed_page.py` plots.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import record

ROOT = Path(__file__).parents[1]
CONFIG = "configs/motion_hard_hiera_micro_mae.yaml"
RUNS = {"all": "all hidden tokens", "running_cell": "half of them"}


def main() -> None:
    """Train both, skipping finished runs, and record their loss curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--runs",
        default="runs/decoder_half",
        help="folder of both runs; finished ones are kept",
    )
    parser.add_argument("--out", type=Path, help="default: results/decoder_half.json")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="as for tools/train_net.py"
    )
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for tokens, words in RUNS.items():
        run = f"{arguments.runs}/{tokens}"
        settings = [
            f"mae.decoder_tokens={tokens}",
            "mae.decoder_share=0.5",
            f"train.epochs={arguments.epochs}",
            "train.eval_every=1",
            f"out_dir={run}",
        ]
        command = [sys.executable, "tools/train_net.py", "--cfg", CONFIG, *settings]
        subprocess.run([*command, *arguments.overrides], cwd=ROOT, check=True)
        results[tokens] = {"what": words, **curves(ROOT / run / "metrics.jsonl")}
        print(f"decoder on {words}: validation loss {results[tokens]['val'][-1]['loss']:.4f}")
    last = {tokens: result["val"][-1]["loss"] for tokens, result in results.items()}
    gap = last["running_cell"] - last["all"]
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "epochs": arguments.epochs,
        "loss_gap": round(gap, 4),
    }
    print(record("decoder_half", {**facts, "runs": results}, arguments.out))


def curves(metrics: Path) -> dict[str, list[dict[str, float]]]:
    """Read the training and validation losses by step."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {
        split: [
            {"step": row["step"], "loss": round(row["loss"], 5)}
            for row in rows
            if row["split"] == split
        ]
        for split in ("train", "val")
    }


if __name__ == "__main__":
    main()
