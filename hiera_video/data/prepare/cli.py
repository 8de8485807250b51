"""What every `datasets/*/prepare.py` can do with a list once it is made: quicker copies, and tar shards."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest
from hiera_video.data.prepare.reencode_config import Recipe
from hiera_video.errors import ConfigError


def add_storage_options(parser: ArgumentParser) -> None:
    """`--reencode`, `--shards` and what goes with them."""
    copies = parser.add_argument_group("copies that are quick to read (optional)")
    copies.add_argument(
        "--reencode", type=Path, metavar="FOLDER", help="write H.264 copies there, and their list"
    )
    copies.add_argument(
        "--short-side",
        type=int,
        default=256,
        metavar="PIXELS",
        help="larger videos are made smaller (256)",
    )
    copies.add_argument(
        "--gop",
        type=int,
        default=32,
        metavar="FRAMES",
        help="from key frame to key frame at most (32)",
    )
    copies.add_argument(
        "--crf", type=int, default=23, help="quality: lower is better, and larger (23)"
    )
    copies.add_argument("--workers", type=int, default=2, help="processes that re-encode (2)")
    copies.add_argument(
        "--deadline",
        type=float,
        default=600.0,
        help="seconds for one video before it counts as hung (600)",
    )
    shards = parser.add_argument_group(
        "tar shards (optional; of the copies, where both are asked for)"
    )
    shards.add_argument(
        "--shards",
        type=Path,
        metavar="FOLDER",
        help="write webdataset shards and their index there",
    )
    shards.add_argument(
        "--shard-mib", type=int, default=1024, metavar="MIB", help="size of a shard at most (1024)"
    )


def store(
    source: str | Path,
    name: str,
    arguments: Namespace,
    *,
    root: Path,
    paths_from: str | None = None,
) -> None:
    """Carry out the options for the list, folder or annotation file `source`, calling the results `name`. `root`: the data
    set's folder, which all its videos lie in; `paths_from`: what the list's paths start from. Prints what to train with."""
    if arguments.reencode is None and arguments.shards is None:
        return
    if not arguments.shard_mib >= 1:
        raise ConfigError(f"--shard-mib {arguments.shard_mib}: must be 1 or more")
    if not arguments.workers >= 0:
        raise ConfigError(f"--workers {arguments.workers}: must be 0 or more")
    if not arguments.deadline > 0:
        raise ConfigError(f"--deadline {arguments.deadline}: must be above 0 seconds")
    recipe = Recipe(short_side=arguments.short_side, gop=arguments.gop, crf=arguments.crf)
    manifest = read_manifest(str(source), root=paths_from)
    if arguments.reencode is not None:
        manifest = _reencode(manifest, name, recipe, arguments, root)
    if arguments.shards is not None:
        _write_shards(manifest, name, arguments)


def _reencode(
    manifest: Manifest, name: str, recipe: Recipe, arguments: Namespace, root: Path
) -> Manifest:
    from tqdm import tqdm

    from hiera_video.data.loading.quarantine import QuarantinePolicy
    from hiera_video.data.prepare.reencode import reencode

    done = reencode(
        manifest,
        arguments.reencode,
        name,
        recipe,
        root=root,
        workers=arguments.workers,
        quarantine=QuarantinePolicy(deadline_seconds=arguments.deadline),
        progress=lambda copies, total: tqdm(
            copies, total=total, unit="video", desc=f"re-encoding {name}"
        ),
    )
    print(
        f"{done.manifest}: {done.written} videos re-encoded, {done.done_before} were there already, {done.broken} cannot "
        f"be read ({done.manifest.with_suffix('.broken.jsonl').name})"
    )
    return read_manifest(str(done.manifest))


def _write_shards(manifest: Manifest, name: str, arguments: Namespace) -> None:
    from tqdm import tqdm

    from hiera_video.data.prepare.tar_writer import write_shards

    index = write_shards(
        manifest,
        arguments.shards,
        name,
        shard_bytes=arguments.shard_mib << 20,
        progress=lambda shards: tqdm(shards, unit="shard", desc=f"shards of {name}"),
    )
    print(
        f"{index}: {len(manifest.records)} records in shards; use it like any list, data.train={index}"
    )
