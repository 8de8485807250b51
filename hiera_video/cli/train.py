"""Train a model, or resume the run in `out_dir`.

hiera-video train --cfg my.yaml data.train=videos/train data.val=videos/val
torchrun --nproc-per-node 8 -m hiera_video train --cfg k400_hiera_b

With overrides:
  train.batch_size=8 optim.lr_for_batch=256    smaller batch, learning rate scaled to it
  train.batch_size=auto                        the recipe's batch in micro-batches that fit the GPU
  train.task=probe model.pretrained=runs/x     train probes on frozen features
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import config_parser
from hiera_video.cli.run import run_tool
from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError
from hiera_video.models.weights.published import PUBLISHED
from hiera_video.runtime.log import require_logger
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra
from hiera_video.utils.remote_files import is_url
from hiera_video.workflows.build import (
    align_val,
    check_validation_files,
    has_validation,
    read_split,
    resolve_num_classes,
)

logger = logging.getLogger(__name__)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return config_parser("train", __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Check all that needs no torch, then train, run a dry run or train probes."""
    arguments = make_parser().parse_intermixed_args(argv)
    require_extra("train")
    config = load_config(arguments.cfg, arguments.overrides)
    check_weights(config, arguments.cfg, warn_only=arguments.dry_run)
    require_logger(config.train.logger)
    train = read_split(config, "train")
    if arguments.dry_run and config.train.task != "probe":
        return dry_run(config, train)
    val = align_val(config, train, read_split(config, "val")) if has_validation(config) else None
    require(
        val is not None or config.train.early_stop is None,
        f"train.early_stop={config.train.early_stop}: needs data.val to validate on; set it, or "
        "train.early_stop=null",
    )
    num_classes = resolve_num_classes(config, train, *([val] if val else []))
    if val is not None:
        check_validation_files(config, val)
    if config.train.task == "probe":
        return probe(config, train, val, num_classes, dry_run=arguments.dry_run)
    return run(config, train, val, num_classes)


def check_weights(config: Config, name: str, *, warn_only: bool) -> None:
    """Refuse to fine-tune from random weights unless `model.pretrained=none` asks for it."""
    if config.train.task == "pretrain" or config.model.pretrained is not None:
        return
    fine_tuned = config.train.task == "detect"  # detectors start from classifiers
    tags = [tag for tag in PUBLISHED.get(config.model.name, {}) if ("_ft_" in tag) == fine_tuned]
    published = f", the tag {tags[0]}" if tags else ""
    message = (
        f"model.pretrained is not set: {name} starts from pre-trained weights; set "
        f"model.pretrained to a file, a run folder{published} or hf-hub:owner/name, or to none to "
        "train from scratch"
    )
    if not warn_only:
        raise ConfigError(message)
    logger.warning("warning: %s", message)


def dry_run(config: Config, train: Manifest) -> int:
    """Run two training steps without writing files, on videos with or without labels.

    Labels, and those of a `data.val` that exists, must be as in a real run. Videos without labels
    are a trial of the recipe.
    """
    source, labelled = config.data.val, train.labels_present or train.class_names
    if source is not None and not is_url(source) and not Path(source).exists():
        logger.warning("warning: data.val=%s: no such file or folder; a run needs it", source)
        val = []
    else:
        wanted = labelled and has_validation(config)
        val = [align_val(config, train, read_split(config, "val"))] if wanted else []
    if labelled:
        resolve_num_classes(config, train, *val)
    for manifest in val:
        check_validation_files(config, manifest)
    from hiera_video.workflows import dry_run as workflow

    return workflow.dry_run(config, train)


def run(config: Config, train: Manifest, val: Manifest | None, num_classes: int | None) -> int:
    """Train to the end, or until a signal."""
    from hiera_video.workflows.train import train_run

    return train_run(config, train, val, num_classes)


def probe(
    config: Config, train: Manifest, val: Manifest | None, num_classes: int | None, *, dry_run: bool
) -> int:
    """Train and test probes on frozen features."""
    from hiera_video.workflows.probe import probe_run

    return probe_run(config, train, val, num_classes, dry_run=dry_run)


if __name__ == "__main__":
    run_tool(main)
