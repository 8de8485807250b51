"""Where loading spends its time, stage by stage and by number of workers, and what would make it faster.

    python tools/benchmark.py data --cfg configs/motion_hiera_micro.yaml
    python tools/benchmark.py data --cfg configs/k400_hiera_b.yaml data.train=videos/train --workers 0 4 8 --demand 25

`--demand`: clips a second that the model takes (`tools/benchmark.py train`), to learn how long it would wait. Files are
read anew, from wherever they lie: a second run may find them in memory. The machine should be idle otherwise.
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

from data_advice import READING, Found, advice
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
CLIPS_OF_COPIES = 24
"""Videos that are copied by the recipe, and clips read of them."""


def main(argv: Sequence[str]) -> int:
    """Measure, print a table and advice."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py data",
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
        "--clips", type=int, default=96, help="clips that each figure is taken over, at least"
    )
    parser.add_argument(
        "--demand", type=float, metavar="CLIPS", help="clips a second that the model takes"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example data.train=videos/train"
    )
    arguments = parser.parse_intermixed_args(argv)
    for name in ("clips", "demand"):
        if getattr(arguments, name) is not None and not getattr(arguments, name) > 0:
            raise ConfigError(f"--{name} {getattr(arguments, name)}: must be above 0")
    with tempfile.TemporaryDirectory() as folder:  # nothing of the run is touched
        config = load_config(arguments.cfg, [*arguments.overrides, f"out_dir={folder}"])
        manifest = read_split(config, "train")
        found = measure(
            config, manifest, arguments.workers, arguments.clips, arguments.demand, Path(folder)
        )
    show(found)
    if arguments.json:
        print(
            record(
                "",
                {"command": "tools/benchmark.py data " + " ".join(argv), **asdict(found)},
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
) -> Found:
    """Stages in this process, then the loader with each number of workers."""
    dataset = clips_of(config, manifest)
    milliseconds = stages(dataset, clips)
    rates, waits = {}, {}
    for number in workers:
        rates[number], _ = by_workers(dataset, number, clips, None)
        if demand is not None:
            _, waits[number] = by_workers(dataset, number, clips, demand)
    on_device = None
    if config.augment.device == "worker":
        moved = replace(config, augment=replace(config.augment, device="model"))
        on_device = sum(stages(clips_of(moved, manifest), clips).values())
    reading = sum(milliseconds[name] for name in READING)
    return Found(
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
    """The training clips, as a run has them."""
    from hiera_video.workflows.train_components import make_clips

    logging.getLogger("hiera_video.data.transforms.flip_labels").setLevel(
        logging.ERROR
    )  # nothing is trained
    return make_clips(
        config,
        manifest,
        config.model.num_classes or max(manifest.num_classes, 1),
        need_labels=False,
    )


def batches(dataset: TrainClips, workers: int) -> Iterator[list[ClipBatch]]:
    """As many as are asked for; `close` ends the workers."""
    from hiera_video.data.loading.batch_plan import BatchPlan
    from hiera_video.data.loading.loader import train_loader

    plan = BatchPlan(num_records=len(dataset), batch_size=min(VIDEOS_A_BATCH, len(dataset)), seed=0)
    return train_loader(dataset, plan, first_step=0, last_step=sys.maxsize, workers=workers)


def stages(dataset: TrainClips, clips: int) -> dict[str, float]:
    """Milliseconds of each stage a clip, in one process and thread."""
    with closing(batches(dataset, 0)) as found:
        next(found)  # imports, the first use of each kernel
        done = 0
        with Stopwatch() as watch:
            while done < clips:
                done += len(next(found)[0].row)
    return {name: 1000 * seconds / done for name, seconds in watch.seconds.items()}


def by_workers(
    dataset: TrainClips, workers: int, clips: int, demand: float | None
) -> tuple[float, float]:
    """Clips a second of the loader, and the share of its time that a model of `demand` waits: of one that takes clips as
    fast as they come, if there is none."""
    with closing(batches(dataset, workers)) as found:
        for _ in range(
            2 * workers + 1
        ):  # all workers are up, and what they read ahead meanwhile is used
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
    """What reading a clip from copies by `prepare.py --reencode` takes, as a share of what it takes now: some videos are
    copied and read. None where that cannot be tried."""
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


def show(found: Found) -> None:
    """The tables and the advice."""
    whole = sum(found.milliseconds.values())
    print(f"{'one process':<10} {'ms a clip':>10} {'share':>6} {'clips/s':>9}")
    for name, words in STAGES.items():
        spent = found.milliseconds[name]
        rate = f"{1000 / spent:.0f}" if spent > 0 else "–"
        print(f"{name:<11} {spent:>10.2f} {spent / whole:>6.0%} {rate:>9}   {words}")
    print(f"{'in all':<11} {whole:>10.2f} {'':>6} {1000 / whole:>9.1f}")
    print(f"\n{'workers':<11} {'clips/s':>10}" + ("  model waits" if found.waits else ""))
    for number, rate in found.clips_per_second.items():
        print(
            f"{number:<11} {rate:>10.1f}"
            + (f"  {found.waits[number]:>11.1%}" if found.waits else "")
        )
    print()
    for sentence in advice(found):
        print(f"- {sentence}")
    versions = facts()
    print(f"\n{versions['machine']}, {versions['versions']}")


if __name__ == "__main__":
    run_tool(lambda: main(sys.argv[1:]))
