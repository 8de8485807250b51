"""Options, lists and steps that the data sets of `hiera-video prepare` share."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.prepare.reencode_config import ReencodeConfig
from hiera_video.errors import ManifestError
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.utils.checks import require
from hiera_video.utils.empty_arguments import refuse_empty_arguments
from hiera_video.utils.text_files import count_of


def make_prepare_parser(dataset: str, description: str | None) -> ArgumentParser:
    """Return the parser of a data set, with the options for re-encoding and tar shards."""
    parser = ArgumentParser(
        prog=f"hiera-video prepare {dataset}",
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--follow-links",
        action="store_true",
        help="read videos behind symbolic links that leave the data set's folder",
    )
    copies = parser.add_argument_group("copies that decode fast (optional)")
    copies.add_argument(
        "--reencode", type=Path, metavar="FOLDER", help="write H.264 copies and their list there"
    )
    copies.add_argument(
        "--short-side",
        type=int,
        default=256,
        metavar="PIXELS",
        help="shorter side that larger videos are scaled down to (256)",
    )
    copies.add_argument(
        "--gop",
        type=int,
        default=32,
        metavar="FRAMES",
        help="largest number of frames between key frames (32)",
    )
    copies.add_argument(
        "--crf", type=int, default=23, help="quality; lower is better and larger (23)"
    )
    copies.add_argument("--workers", type=int, default=2, help="processes that re-encode (2)")
    copies.add_argument(
        "--deadline",
        type=float,
        default=600.0,
        help="seconds before one video counts as hung (600)",
    )
    shards = parser.add_argument_group("tar shards (optional; of the copies, if both are made)")
    shards.add_argument(
        "--shards",
        type=Path,
        metavar="FOLDER",
        help="write webdataset shards and their index there",
    )
    shards.add_argument(
        "--shard-mib", type=int, default=1024, metavar="MIB", help="largest size of a shard (1024)"
    )
    return parser


def parse_arguments(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """Parse the command line and check the options of `make_prepare_parser`.

    Returns:
        The arguments; `config` is the `ReencodeConfig`.

    Raises:
        ConfigError: A value is out of range or empty.
    """
    refuse_empty_arguments(sys.argv[2:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    mib, workers, deadline = arguments.shard_mib, arguments.workers, arguments.deadline
    require(mib >= 1, f"--shard-mib {mib}: must be 1 or more")
    require(workers >= 0, f"--workers {workers}: must be 0 or more")
    require(deadline > 0, f"--deadline {deadline}: must be above 0 seconds")
    arguments.config = ReencodeConfig(
        short_side=arguments.short_side, gop=arguments.gop, crf=arguments.crf
    )
    return arguments


def require_paths(*paths: Path, dataset: str) -> None:
    """Check that the files and folders of a release exist.

    Raises:
        ManifestError: One is missing; the message names the command that describes the layout.
    """
    for path in paths:
        if not path.exists():
            raise ManifestError(
                f"{path}: does not exist; hiera-video prepare {dataset} --help describes the layout"
            )


def write_list(path: Path, lines: Sequence[str], *, listed: int, num_classes: int) -> None:
    """Write a list file and print how many of the release's `listed` videos it has."""
    write_atomic(path, "".join(lines), shared=True)
    print(f"{path}: {len(lines)} of {listed} listed videos are present, {num_classes} classes")


def reencode_and_shard(
    source: Path, name: str, arguments: Namespace, *, root: Path, list_root: str | None = None
) -> None:
    """Make the copies and shards that the options request, and print their lists.

    Args:
        source: List, folder or annotation file of one split.
        name: Name of the resulting lists and shards.
        arguments: From `parse_arguments`.
        root: Folder of the data set, which contains all its videos.
        list_root: Folder that the paths in `source` start from; None: the source's own.
    """
    if arguments.reencode is None and arguments.shards is None:
        return
    manifest = read_manifest(str(source), root=list_root, follow_links=arguments.follow_links)
    if arguments.reencode is not None:
        manifest = _reencode(manifest, name, arguments, root)
    if arguments.shards is not None:
        _write_shards(manifest, name, arguments)


def _reencode(manifest: Manifest, name: str, arguments: Namespace, root: Path) -> Manifest:
    # after the checks: these import torch
    from hiera_video.data.loading.quarantine import QuarantinePolicy
    from hiera_video.data.prepare.reencode import reencode

    result = reencode(
        manifest,
        arguments.reencode,
        name,
        arguments.config,
        root=root,
        workers=arguments.workers,
        quarantine=QuarantinePolicy(deadline_seconds=arguments.deadline),
        progress=lambda copies, total: tqdm(
            copies, total=total, unit="video", desc=f"re-encoding {name}"
        ),
    )
    failures = result.manifest.with_suffix(".broken.jsonl").name
    print(
        f"{result.manifest}: {count_of(result.written, 'video')} re-encoded, {result.existed} "
        f"skipped (copied before), {result.unreadable} unreadable ({failures})"
    )
    return read_manifest(str(result.manifest))


def _write_shards(manifest: Manifest, name: str, arguments: Namespace) -> None:
    from hiera_video.data.prepare.tar_writer import write_shards

    index = write_shards(
        manifest,
        arguments.shards,
        name,
        shard_bytes=arguments.shard_mib << 20,
        progress=lambda shards: tqdm(shards, unit="shard", desc=f"shards of {name}"),
    )
    print(f"{index}: {len(manifest.records)} records in shards; use it as data.train={index}")
