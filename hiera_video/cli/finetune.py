"""Fine-tune a model on a small data set of your own: split, recipe, training and test.

hiera-video finetune videos/ --model hiera_base_16x224 --checkpoint mae_k400 output=runs/mine
hiera-video finetune videos/ --run runs/pretrained output=runs/mine --dry-run
hiera-video finetune list.csv --run runs/x --groups groups.csv output=runs/mine train.epochs=30

The videos lie in a folder for each class, or are in a list. They are divided by class into lists
for training, validation and test; videos of one recording stay together: segments by their names,
groups of --groups, near duplicates by their pictures. The recipe follows from the number of videos
and the weights, and your keys override it. The test is on the part that chose nothing.

Writes lists/, recipe.yaml and the run into the output; --dry-run stops after the plan and adds
clips.png and learning_rate.png. The same command resumes, and keeps lists that you edited.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.arguments import add_model_source, command_parser, single, split_paths
from hiera_video.cli.run import run_tool
from hiera_video.errors import ConfigError
from hiera_video.models.weights.published import PUBLISHED
from hiera_video.utils.checks import require
from hiera_video.utils.extras import require_extra
from hiera_video.workflows.finetune_config import check_keys, start_keys
from hiera_video.workflows.finetune_lists import ListRequest, read_videos

KEY = re.compile(r"[a-z_]+(\.[a-z_]+)?=")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = command_parser("finetune", __doc__)
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="FOLDER | LIST | output=DIR | key=value",
        help="the videos; the run's folder; keys that override the recipe",
    )
    add_model_source(parser)
    add("--out", metavar="DIR", help="the same as output=")
    add("--root", metavar="DIR", help="folder that all lists' paths start from (each list's own)")
    add("--groups", metavar="FILE", help="CSV file with the columns path and group")
    add("--source", metavar="REGEX", help="group of a pattern in the path: the recording")
    add("--val", metavar="LIST", help="validation videos, instead of a part of the others")
    add("--test", metavar="LIST", help="test videos, instead of a part of the others")
    add("--dry-run", action="store_true", help="write lists, recipe and pictures; train nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check all that needs no torch, then divide, train and test."""
    arguments = make_parser().parse_intermixed_args(argv)
    inputs, outputs, rest = split_paths(arguments.paths)
    keys = tuple(text for text in rest if KEY.match(text) and not Path(text).exists())
    inputs += [text for text in rest if text not in keys]
    require(len(inputs) == 1, "name the videos: one folder with a folder for each class, or a list")
    output = single(outputs, "output", "--out", arguments.out)
    require(output is not None, "output= is not set; name a folder for the run, such as runs/mine")
    require(
        os.environ.get("WORLD_SIZE", "1") == "1",
        "finetune runs in one process; for several devices, run it with --dry-run, then torchrun "
        f"-m hiera_video train --cfg {output}/recipe.yaml",
    )
    require_extra("train")
    _check_weights(arguments)
    start = start_keys(arguments.run, arguments.model, arguments.checkpoint)
    config = check_keys(start, keys)
    request = ListRequest(
        videos=inputs[0],
        root=arguments.root,
        val=arguments.val,
        test=arguments.test,
        groups=arguments.groups,
        source=arguments.source,
    )
    manifest = read_videos(request, config)
    from hiera_video.workflows.finetune import FinetuneRequest, finetune

    whole = FinetuneRequest(lists=request, start=start, overrides=keys, output=Path(str(output)))
    return finetune(whole, manifest, config, dry_run=arguments.dry_run)


def _check_weights(arguments: argparse.Namespace) -> None:
    """Refuse to train from scratch unless `--checkpoint none` says so."""
    if arguments.run is None and arguments.checkpoint is None:
        tags = ", ".join(PUBLISHED.get(arguments.model, {}))
        raise ConfigError(
            f"--model {arguments.model}: needs --checkpoint: a file, folder or run"
            f"{f', the tag {tags}' if tags else ''}, or none to train from scratch"
        )
    if arguments.run is not None:
        require(
            arguments.checkpoint in (None, "best", "last"),
            f"--checkpoint {arguments.checkpoint}: must be best or last with --run; other weights "
            "go with --model NAME",
        )


if __name__ == "__main__":
    run_tool(main)
