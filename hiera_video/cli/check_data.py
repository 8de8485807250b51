"""Read every video of a data set before training does: broken, missing, short, doubled; class order; a clean manifest.

python tools/check_data.py --train data/kinetics400/train.csv --val data/kinetics400/val.csv --out data/kinetics400/check
python tools/check_data.py --train videos/train --out check --workers 8 --quick

Writes check.json, report.html and, a split, a manifest without the broken videos (and packets.index with --index). Exit
code 3 where more than --max-broken of the videos cannot be read.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from hiera_video.cli.run import run_tool
from hiera_video.data.config import DataConfig
from hiera_video.data.manifest.class_names import read_class_names
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.sampling import ClipConfig
from hiera_video.errors import ConfigError
from hiera_video.utils.atomic_files import write_atomic

logger = logging.getLogger(__name__)
BROKEN_LIMIT = 3


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for split in ("train", "val", "test"):
        parser.add_argument(
            f"--{split}", metavar="MANIFEST", help="list, folder or annotation file of that split"
        )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument(
        "--root", help="folder that relative paths start from; the manifest's own where unset"
    )
    parser.add_argument("--separator", help="between path and label; sniffed where unset")
    parser.add_argument(
        "--decoder", default="pyav", choices=("pyav", "decord", "torchcodec", "frames")
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes; 0 reads in this one, without a deadline"
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=60.0,
        help="seconds for one video before it counts as hung",
    )
    parser.add_argument(
        "--quick", action="store_true", help="decode a few frames of each video instead of all"
    )
    parser.add_argument(
        "--index",
        action="store_true",
        help="write packets.index, for data.index: long videos open quicker",
    )
    parser.add_argument(
        "--clip", default="16x4", metavar="TxS", help="videos that span less count as short"
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="class names in the right order; k400 for Kinetics-400's"
    )
    parser.add_argument(
        "--max-broken", type=float, default=0.05, help="share that may be broken before exit code 3"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the splits, write what was found."""
    arguments = parse(argv)
    settings = DataConfig(
        decoder=arguments.decoder, workers=arguments.workers, deadline_seconds=arguments.deadline
    )
    frames, _, stride = arguments.clip.partition("x")
    if not (frames.isdigit() and stride.isdigit()):
        raise ConfigError(f"--clip {arguments.clip}: must be frames x stride, like 16x4")
    clip = ClipConfig(num_frames=int(frames), frame_stride=int(stride))
    given = {
        split: getattr(arguments, split)
        for split in ("train", "val", "test")
        if getattr(arguments, split)
    }
    if not given:
        raise ConfigError("nothing to check: name a manifest with --train, --val or --test")
    if arguments.index and arguments.decoder != "pyav":
        raise ConfigError(
            f"--index goes with --decoder pyav, not {arguments.decoder}; change one of them"
        )
    manifests = {
        split: read_manifest(source, root=arguments.root, separator=arguments.separator)
        for split, source in given.items()
    }
    from tqdm import tqdm

    from hiera_video.data.loading.quarantine import FILE_NAME, QuarantinePolicy
    from hiera_video.data.prepare import check  # after the checks: it takes seconds to import

    aligned, names = check.in_one_order(manifests, arguments.out)
    clean = check.plan_clean(arguments.out, aligned)
    arguments.out.mkdir(parents=True, exist_ok=True)
    quarantine = QuarantinePolicy(
        deadline_seconds=arguments.deadline, file=str(arguments.out / FILE_NAME)
    )
    found, splits = {}, {}
    for split, manifest in manifests.items():
        videos = check.scan(manifest, decoder=settings.backend, workers=arguments.workers, quarantine=quarantine,
                            quick=arguments.quick, index=arguments.index)  # fmt: skip
        found[split] = list(tqdm(videos, total=len(manifest.records), unit="video", desc=split))
        splits[split] = check.summary(found[split], manifest, clip)
        why = ", ".join(f"{reason} {count}" for reason, count in splits[split]["reasons"].items())
        why = f"; {why}: {splits[split]['broken'][0]['path']} for one" if why else ""
        logger.info(
            "%s: %d of %d videos can be read%s",
            split,
            splits[split]["readable"],
            len(manifest.records),
            why,
        )
    if arguments.index:
        logger.info(
            "data.index=%s: the packets of %d videos", *check.index_packets(arguments.out, found)
        )
    written = check.write_lists(arguments.out, clean, manifests, found, names)
    (order, note), overlap = check_order(names, arguments.classes), check.overlap(found)
    results = {"splits": splits, "overlap": overlap, "class_order": order, "class_order_of": note,
               check.CLEAN_LISTS: written}  # fmt: skip
    write_atomic(arguments.out / check.RESULTS, json.dumps(results, indent=1, ensure_ascii=False))
    how = f"{'Eight frames of each video' if arguments.quick else 'Every frame'} decoded with {arguments.decoder}."
    facts = {"title": f"Videos of {', '.join(given.values())}", "how": how, "splits": splits, "overlap": overlap,
             "order": order, "order_note": note}  # fmt: skip
    check.write_page(arguments.out / "report.html", facts)
    logger.info("%d groups of files with the same bytes, %d across splits; class order: %s", len(overlap),
                sum(len(group["splits"]) > 1 for group in overlap),
                "not checked" if order is None else f"{len(order)} differences from {note}")  # fmt: skip
    logger.info("report: %s", arguments.out / "report.html")
    broken, total = (
        sum(len(split["broken"]) for split in splits.values()),
        sum(map(len, found.values())),
    )
    return BROKEN_LIMIT if broken > arguments.max_broken * total else 0


def check_order(names: tuple[str, ...] | None, classes: str | None) -> tuple[list[str] | None, str]:
    """Differences from the user's list, or Kinetics-400's where there are 400 classes; and which list that was."""
    from hiera_video.data.prepare import check

    if names is None:
        return None, "the list names no classes, and its folders do not tell them"
    if classes not in (None, "k400"):
        return check.class_order(names, read_class_names(Path(str(classes)))), str(classes)
    if classes is None and len(names) != 400:
        return None, "pass --classes with a file of names in the right order"
    from torchvision.models._meta import _KINETICS400_CATEGORIES as known

    return check.class_order(names, known), "Kinetics-400's known order"


if __name__ == "__main__":
    run_tool(main)
