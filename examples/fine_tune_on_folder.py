"""Fine-tune on videos/train/<class>/*.mp4, validate on videos/val, and test; resumable.

    python examples/fine_tune_on_folder.py k400_hiera_b videos out_dir=runs/mine \\
        model.pretrained=mae_k400 train.epochs=10 train.batch_size=16 optim.lr_for_batch=256

The first argument is a configuration's file or name. Further arguments override its keys.
"""

from __future__ import annotations

import logging
import sys

import hiera_video as hv
from hiera_video.workflows.build import align_val, read_split, resolve_num_classes
from hiera_video.workflows.test import run_test
from hiera_video.workflows.train import train_run


def main(configuration: str, videos: str, *overrides: str) -> int:
    folders = [f"data.train={videos}/train", f"data.val={videos}/val", "model.num_classes=null"]
    config = hv.load_config(configuration, [*folders, *overrides])
    train = read_split(config, "train")
    val = align_val(config, train, read_split(config, "val"))
    code = train_run(config, train, val, resolve_num_classes(config, train, val))
    return code or run_test(config, val, dry_run=False)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(*sys.argv[1:]))
