"""Does a decoder on half of the hidden tokens learn as well? The same pre-training twice, their loss curves.

    python datasets/motion/prepare.py --out data/motion_hard --hard
    python benchmarks/decoder_half.py            # ten minutes on two idle cores

Runs configs/motion_hard_hiera_micro_mae.yaml with mae.decoder_tokens=all and =running_cell (half of them); seed, data and
order are the same. Held-out loss is each run's own: over all hidden tokens, or over the decoded half of them. The micro
size's decoder is too small for a gain in time to show; that is `tools/benchmark.py mae`'s matter. Writes
`results/decoder_half.json`; `speed_page.py` draws it.
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
    """Run what is missing, record both curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--runs",
        default="runs/decoder_half",
        help="folder of both runs; finished ones are not run again",
    )
    parser.add_argument("--out", type=Path, help="where the result goes instead")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train_net.py")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for tokens, words in RUNS.items():
        run = f"{arguments.runs}/{tokens}"
        settings = [
            f"mae.decoder_tokens={tokens}",
            "mae.decoder_share=0.5",
            f"train.epochs={arguments.epochs}",
        ]
        command = [
            sys.executable,
            "tools/train_net.py",
            "--cfg",
            CONFIG,
            *settings,
            "train.eval_every=1",
        ]
        subprocess.run([*command, f"out_dir={run}", *arguments.overrides], cwd=ROOT, check=True)
        results[tokens] = {"what": words, **curves(ROOT / run / "metrics.jsonl")}
        print(f"decoder on {words}: held-out loss {results[tokens]['val'][-1]['loss']:.4f}")
    last = {tokens: result["val"][-1]["loss"] for tokens, result in results.items()}
    gap = last["running_cell"] - last["all"]
    facts = {
        "command": " ".join(["python", *sys.argv]),
        "epochs": arguments.epochs,
        "loss_gap": round(gap, 4),
    }
    print(record("decoder_half", {**facts, "runs": results}, arguments.out))


def curves(metrics: Path) -> dict[str, list[dict[str, float]]]:
    """Loss by step, in training and held out."""
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
