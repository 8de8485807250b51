"""Measure the loader by stage and by number of workers, and advise how to make it faster.

    hiera-video benchmark data --cfg motion_hiera_micro
    hiera-video benchmark data --cfg k400_hiera_b data.train=videos/train \\
        --workers 0 4 8 --demand 25

With `--demand`, the clips a second that your model takes (`hiera-video benchmark train`), it also
measures how long the model would wait. Files are read from their disk, or from memory if an earlier
run has left them there. The machine should otherwise be idle.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_advice import READING, LoadingTimes, advice
from record import facts, record

from hiera_video.cli.run import run_tool
from hiera_video.config.load import load_config
from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError
from hiera_video.utils.profiler import STAGES, Stopwatch
from hiera_video.workflows.build import read_split

if TYPE_CHECKING:
    from hiera_video.data.dataset import TrainClips
    from hiera_video.data.loading.loader import ClipBatch

VIDEOS_A_BATCH = 2
REENCODED = 4
"""Videos that are re-encoded for the comparison."""
CLIPS_OF_COPIES = 24
"""Clips read of them."""


def main(argv: Sequence[str]) -> int:
    """Measure, and print tables and advice."""
    parser = argparse.ArgumentParser(
        prog="hiera-video benchmark data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cfg", required=True, metavar="FILE", help="experiment whose training clips are loaded"
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers of workers to try"
    )
    parser.add_argument(
        "--clips", type=int, default=96, help="measure each figure over at least so many clips"
    )
    parser.add_argument(
        "--demand", type=float, metavar="CLIPS", help="clips a second that the model takes"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to FILE")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example data.train=videos/train"
    )
    arguments = parser.parse_intermixed_args(argv)
    for name in ("clips", "demand"):
        if getattr(arguments, name) is not None and not getattr(arguments, name) > 0:
            raise ConfigError(f"--{name} {getattr(arguments, name)}: must be above 0")
    with tempfile.TemporaryDirectory() as folder:  # out_dir stays untouched
        config = load_config(arguments.cfg, [*arguments.overrides, f"out_dir={folder}"])
        manifest = read_split(config, "train")
        times = measure(
            config, manifest, arguments.workers, arguments.clips, arguments.demand, Path(folder)
        )
    print_report(times)
    if arguments.json:
        print(
            record(
                "",
                {"command": "hiera-video benchmark data " + " ".join(argv), **asdict(times)},
                arguments.json,
            )
        )
    return 0


def measure(
    config: Config,
    manifest: Manifest,
    workers: Sequence[int],
    clips: int,
    demand: float | None,
    folder: Path,
) -> LoadingTimes:
    """Measure the stages in this process, then the loader with each number of workers."""
    dataset = clips_of(config, manifest)
    milliseconds = stages(dataset, clips)
    rates, waits = {}, {}
    for number in workers:
        rates[number], _ = by_workers(dataset, number, clips, None)
        if demand is not None:
            _, waits[number] = by_workers(dataset, number, clips, demand)
    on_device = None
    if config.augment.device != "model":
        moved = replace(config, augment=replace(config.augment, device="model"))
        on_device = sum(stages(clips_of(moved, manifest), clips).values())
    reading = sum(milliseconds[name] for name in READING)
    return LoadingTimes(
        milliseconds=milliseconds,
        clips_per_second=rates,
        waits=waits,
        demand=demand,
        cores=len(os.sched_getaffinity(0)),
        reencoded=reencoded(config, manifest, folder)
        if reading > sum(milliseconds.values()) / 2
        else None,
        on_device=on_device,
    )


def clips_of(config: Config, manifest: Manifest) -> TrainClips:
    """Return the training samples of a run with this configuration."""
    from hiera_video.workflows.train_components import make_clips

    # its warning about flips concerns training alone
    logging.getLogger("hiera_video.data.transforms.flip_labels").setLevel(logging.ERROR)
    return make_clips(
        config,
        manifest,
        config.model.num_classes or max(manifest.num_classes, 1),
        need_labels=False,
    )


def batches(dataset: TrainClips, workers: int) -> Iterator[list[ClipBatch]]:
    """Yield batches without end; closing the generator ends the workers."""
    from hiera_video.data.loading.batch_plan import BatchPlan
    from hiera_video.data.loading.loader import train_loader

    plan = BatchPlan(num_records=len(dataset), batch_size=min(VIDEOS_A_BATCH, len(dataset)), seed=0)
    return train_loader(dataset, plan, first_step=0, last_step=sys.maxsize, workers=workers)


def stages(dataset: TrainClips, clips: int) -> dict[str, float]:
    """Return the milliseconds of each stage per clip, in one process and thread."""
    with closing(batches(dataset, 0)) as found:
        next(found)  # imports, and the first use of each kernel
        done = 0
        with Stopwatch() as watch:
            while done < clips:
                done += len(next(found)[0].row)
    return {name: 1000 * seconds / done for name, seconds in watch.seconds.items()}


def by_workers(
    dataset: TrainClips, workers: int, clips: int, demand: float | None
) -> tuple[float, float]:
    """Return the loader's clips per second, and the share of the time that a model waits for it.

    The model takes `demand` clips a second; None: as many as there are.
    """
    with closing(batches(dataset, workers)) as found:
        for _ in range(2 * workers + 1):  # all workers start, and what they read ahead is used up
            next(found)
        began, waited, done = time.perf_counter(), 0.0, 0
        while done < clips:
            asked = time.perf_counter()
            count = len(next(found)[0].row)
            waited += time.perf_counter() - asked
            done += count
            if demand is not None:
                time.sleep(count / demand)
        seconds = time.perf_counter() - began
    return done / seconds, waited / seconds


def reencoded(config: Config, manifest: Manifest, folder: Path) -> float | None:
    """Return the time of reading re-encoded videos as a share of the time now.

    Re-encodes a few videos as `hiera-video prepare folder --reencode` does. None if that is not
    possible.
    """
    from hiera_video.data.loading.quarantine import QuarantinePolicy
    from hiera_video.data.manifest.read import read_manifest
    from hiera_video.data.prepare.reencode import reencode
    from hiera_video.data.prepare.reencode_config import ReencodeConfig

    few = replace(
        manifest,
        records=manifest.records[:: max(len(manifest.records) // REENCODED, 1)][:REENCODED],
    )
    if config.data.decoder != "pyav" or any(
        record.shard_video or record.num_frames for record in few.records
    ):
        return None
    root = Path(os.path.commonpath([Path(record.path).parent for record in few.records]))
    done = reencode(
        few,
        folder / "copies",
        "train",
        ReencodeConfig(),
        root=root,
        workers=0,
        quarantine=QuarantinePolicy(),
    )
    times = []
    for files in (few, read_manifest(str(done.manifest))):
        found = stages(clips_of(config, files), CLIPS_OF_COPIES)
        times.append(sum(found[name] for name in READING))
    return times[1] / times[0]


def print_report(times: LoadingTimes) -> None:
    """Print the tables and the advice."""
    whole = sum(times.milliseconds.values())
    print(f"{'one process':<10} {'ms a clip':>10} {'share':>6} {'clips/s':>9}")
    for name, words in STAGES.items():
        spent = times.milliseconds[name]
        rate = f"{1000 / spent:.0f}" if spent > 0 else "–"
        print(f"{name:<11} {spent:>10.2f} {spent / whole:>6.0%} {rate:>9}   {words}")
    print(f"{'total':<11} {whole:>10.2f} {'':>6} {1000 / whole:>9.1f}")
    print(f"\n{'workers':<11} {'clips/s':>10}" + ("  model waits" if times.waits else ""))
    for number, rate in times.clips_per_second.items():
        print(
            f"{number:<11} {rate:>10.1f}"
            + (f"  {times.waits[number]:>11.1%}" if times.waits else "")
        )
    print()
    for sentence in advice(times):
        print(f"- {sentence}")
    found = facts()
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"\n{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; {versions}")


if __name__ == "__main__":
    run_tool(lambda: main(sys.argv[1:]))
