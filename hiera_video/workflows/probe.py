"""Probes on frozen features, assembled from a `Config`: what `tools/train_net.py` does with `train.task=probe`."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hiera_video.config.schema import Config
from hiera_video.data.manifest.record import Manifest
from hiera_video.errors import ConfigError, ManifestError
from hiera_video.eval.evaluate import predict_views, single_labels
from hiera_video.eval.metrics import accuracy, intervals
from hiera_video.eval.shards import EvalShardStore
from hiera_video.models.hiera import HieraEncoder
from hiera_video.probe.probes import Videos, run_probe
from hiera_video.runtime.distributed import World, init_distributed
from hiera_video.runtime.run_folder import lock_run_folder, write_environment
from hiera_video.utils.atomic_files import write_atomic
from hiera_video.workflows.build import make_model, make_views
from hiera_video.workflows.test import identity

logger = logging.getLogger(__name__)
FOLDER = "probe"
"""In `out_dir`, which may be the folder of the run whose weights are probed: nothing of that run is touched."""


class FrozenTokens(nn.Module):
    """Clips → the tokens of the last map [B, L·C] (their mean [B, C] where `mean`), flat like a classifier's output."""

    def __init__(self, encoder: HieraEncoder, *, mean: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean = mean

    def forward(self, clips: Tensor) -> Tensor:
        """Tokens in spatial order."""
        tokens = self.encoder.forward_features(clips).flatten(1, 3)
        return tokens.mean(dim=1) if self.mean else tokens.flatten(1)


def probe_run(
    config: Config, train: Manifest, val: Manifest | None, num_classes: int | None, *, dry_run: bool
) -> int:
    """Extract the features of both lists (what was extracted before is read again), try the probes, write
    `out_dir/probe/probes.json`. Returns the exit code."""
    if val is None:
        raise ConfigError(
            "data.val is not set; train.task=probe answers for the videos of data.val"
        )
    if train.multi_label or val.multi_label:
        raise ManifestError(
            f"{train.source}: has several labels a video; probes need one class each"
        )
    if dry_run:
        train, val = (replace(part, records=part.records[:2]) for part in (train, val))
    assert num_classes is not None
    folder = Path(config.out_dir) / FOLDER
    with init_distributed() as here, lock_run_folder(folder) if here.is_main and not dry_run else nullcontext():
        weights = None if config.model.pretrained == "none" else config.model.pretrained
        torch.manual_seed(
            config.seed
        )  # what starts fresh, the unused head too, is the same in every run
        encoder = make_model(config, num_classes, pretrained=weights).to(here.device)
        assert isinstance(encoder, HieraEncoder)
        _check_memory(config, encoder, len(train.records) + len(val.records))
        store = None if dry_run else folder / "features"
        parts = [
            _extracted(config, encoder, part, here, store, name)
            for part, name in ((train, "train"), (val, "val"))
        ]
        if not here.is_main:
            return 0
        if dry_run:
            logger.info("dry run: features [videos, views, tokens, channels] %s; nothing written",
                        list(parts[0].features.shape))  # fmt: skip
            return 0
        write_environment(folder)
        results = {
            "model": config.model.name,
            "weights": config.model.pretrained,
            "views": f"{config.probe.clips}x{config.probe.crops}",
            "train_videos": len(parts[0].labels),
            "evaluated": len(parts[1].labels),
            "of": len(val.records),
            "probes": _probes(config, parts[0], parts[1], num_classes),
        }
        write_atomic(folder / "probes.json", json.dumps(results, indent=1))
    for line in table(results):
        logger.info("%s", line)
    logger.info("results: %s", folder / "probes.json")
    return 0


def _probes(config: Config, train: Videos, val: Videos, num_classes: int) -> list[dict[str, Any]]:
    rows = []
    for kind in config.probe.kinds:
        answers, setting, sweep = run_probe(
            kind, train, val, config.probe, num_classes=num_classes, seed=config.seed
        )
        shares, labels = answers.double().cpu().numpy(), val.labels.cpu().numpy()
        found = {"probe": kind, "setting": asdict(setting), **accuracy(shares, labels)}
        rows.append({**found, "intervals": intervals(shares, labels), "sweep": sweep})
        logger.info(
            "%s: top-1 %.2f with %s, chosen on the training videos",
            kind,
            found["top1"],
            found["setting"],
        )
    return rows


def table(results: dict[str, Any]) -> list[str]:
    """Lines for people: a probe each, with the 95 % interval over videos."""
    lines = [
        f"{'probe':10}  top-1   95 % interval  top-5   (evaluated {results['evaluated']} of {results['of']})"
    ]
    for row in results["probes"]:
        low, high = row["intervals"]["top1"]
        lines.append(
            f"{row['probe']:10}  {row['top1']:5.1f}  {low:6.1f} – {high:5.1f}  {row['top5']:5.1f}"
        )
    return lines


def _extracted(
    config: Config,
    encoder: HieraEncoder,
    manifest: Manifest,
    here: World,
    store: Path | None,
    name: str,
) -> Videos:
    """Features of the videos of `manifest` that can be read, kept in shards under `store/name`."""
    probe, model = config.probe, FrozenTokens(encoder, mean="attentive" not in config.probe.kinds)
    views = make_views(config, manifest, clips=probe.clips, crops=probe.crops)
    what = {
        **identity(config, encoder, here, [probe.clips, probe.crops]),
        "tokens": "mean" if model.mean else "all",
    }
    found = predict_views(
        model,
        views,
        batch_size=config.test.batch_size,
        workers=config.data.workers,
        world=here,
        store=EvalShardStore(store / name, what, manifest.records) if store else None,
        progress=True,
    )
    for item in found.broken:
        logger.warning("%s: row %d cannot be read: %s", name, item.row, item.message)
    if not len(found.rows):
        raise ManifestError(
            f"{manifest.source}: none of its {len(manifest.records)} videos can be read; see above"
        )
    features = torch.from_numpy(found.logits).view(
        *found.logits.shape[:2], -1, encoder.stages[-1].dim
    )
    labels = torch.from_numpy(single_labels(manifest, found.rows))
    return Videos(features=features.to(here.device), labels=labels.to(here.device))


def _check_memory(config: Config, encoder: HieraEncoder, videos: int) -> None:
    last = encoder.stages[-1]
    tokens = last.grid[0] * last.grid[1] * last.grid[2] if "attentive" in config.probe.kinds else 1
    gigabytes = 4e-9 * videos * config.probe.clips * config.probe.crops * tokens * last.dim
    if gigabytes > config.probe.max_gigabytes:
        raise ConfigError(
            f"the features of {videos} videos take {gigabytes:.1f} GB, over probe.max_gigabytes="
            f"{config.probe.max_gigabytes:g}; set probe.kinds=[knn,linear], which need the mean token alone, lower "
            "probe.clips, take a part of the list, or raise the limit"
        )
