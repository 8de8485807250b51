"""Do the maps of `hv.explain` mean something? Three checks on the demo's motion set.

    hiera-video demo output=demo            # trains the model; minutes
    python benchmarks/explain.py demo/runs/motion_hard_hiera_micro demo/data/motion_hard
    python benchmarks/explain.py … --picture docs/explain.png       # the clips of --clips instead

- Weight randomisation: rank correlation of a map with the map of a newly initialised model, and of
  one whose head alone is new. A map that does not change says nothing of what was learned.
- Deletion and insertion: the probability of the predicted class while mask units are removed, or
  shown, in the map's order, as the mean over 7 steps of an eighth. Compared with random orders and
  with the order by distance from the centre, on the same videos, with 95 % intervals of the
  difference.
- Pointing game: how often a frame's largest value lies in the cell that holds the object, whose
  track the set's generator knows.

Attention of one query and features as colours name no important places; they are randomised only.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import reduce
from record import record
from torch import Tensor

import hiera_video as hv
from hiera_video.data.manifest.record import Record
from hiera_video.data.prepare.motion import MARKER, MotionOptions, list_clips
from hiera_video.data.prepare.motion_scenes import CLASSES, FPS, HEIGHT, WIDTH, draw_scene
from hiera_video.explanations.evidence import require_classifier
from hiera_video.models.factory import create_model
from hiera_video.models.hiera import Hiera
from hiera_video.viz.films import film_sheet
from hiera_video.workflows.clip_films import explanation_film
from hiera_video.workflows.explain import explain_clip, middle_view

METHODS: dict[str, dict[str, Any]] = {
    "evidence": {},
    "occlusion": {"draws": 128},
    "rollout": {},
    "attention": {"query": (4, 0, 0)},
    "colours": {},
}
RANKING = ("evidence", "occlusion", "rollout")
"""Methods whose largest values claim to be important."""
CLIP_FRAMES, STEPS = 16, 8
RANDOM_ORDERS = 4
LIMIT = 0.5
"""Mean rank correlation with a new model's maps, beyond which a method fails."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path, help="draw the maps of some clips, and stop")
    parser.add_argument("--clips", nargs="*", default=["1923", "1925"], help="their numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = hv.load(arguments.run)
    if arguments.picture:
        paths = [arguments.data / "videos" / f"{name}.mp4" for name in arguments.clips]
        arguments.picture.write_bytes(picture(run, paths))
        return
    model = require_classifier(run.model)
    others = {"new weights": new_model(model, all_weights=True), "new head": new_model(model)}
    found: dict[str, list[float]] = defaultdict(list)
    correct = 0
    options = json.loads((arguments.data / MARKER).read_text())
    settings = MotionOptions(**{key: options[key] for key in ("seed", "hard", "clips_per_class")})
    held_out = [clip for clip in list_clips(settings) if clip.split == "validation"]
    for clip in held_out[: arguments.videos]:
        path = str(arguments.data / "videos" / f"{clip.id}.mp4")
        view, seconds = middle_view(run.config, Record(path=path, label=None, row=0))
        _, axis, direction = CLASSES[clip.label]
        track = draw_scene(clip.split, axis, clip.number, settings.seed).track(direction)
        cells = object_cells(track, seconds, model.config.unit_grid)
        target = explain_clip(run, view).target
        correct += target == clip.label
        measure(run, view, target, cells, others, found)
        print(f"{clip.id}", flush=True)
    result = {
        "run": arguments.run.name,
        "videos": arguments.videos,
        "top1": 100 * correct / arguments.videos,
        "units": list(model.config.unit_grid),
        "limit": LIMIT,
        "methods": {name: summary(name, found) for name in (*METHODS, "random", "centre")},
    }
    print(json.dumps(result, indent=1))
    record("explain", result, arguments.out)


def picture(run: hv.LoadedRun, paths: Sequence[Path]) -> bytes:
    """Return a PNG with the frames of clips and the maps of each method over them."""
    films = []
    for path in paths:
        view, seconds = middle_view(run.config, Record(path=str(path), label=None, row=0))
        drawn = []
        for name in ("evidence", "occlusion", "rollout", "colours"):
            options = {"draws": 512} if name == "occlusion" else {}
            options = {"stage": 1} if name == "colours" else options
            found = explain_clip(run, view, method=name, clip_seconds=seconds, **options)  # type: ignore[arg-type]
            film = explanation_film(found, path.name)
            drawn += film.renderings if not drawn else film.renderings[1:]
        films.append(replace(film, renderings=tuple(drawn)))
    return film_sheet(films)


def new_model(model: Hiera, *, all_weights: bool = False) -> Hiera:
    """Return a model with a newly initialised head, or with all weights newly initialised."""
    torch.manual_seed(1)
    new = create_model("hiera_micro_16x32", num_classes=model.num_classes)
    assert isinstance(new, Hiera)
    if not all_weights:
        kept = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
        new.load_state_dict(kept, strict=False)
    return new.eval()


def object_cells(
    track: np.ndarray, seconds: tuple[float, float], grid: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the cell (row, column) that holds the object's centre, for each time of a map."""
    first = round(seconds[0] * FPS)  # the frames of a clip are consecutive
    chosen = track[first : first + CLIP_FRAMES]
    cells = []
    for part in np.split(chosen, grid[0]):
        x, y = part[:, 0].mean() + WIDTH / 2, part[:, 1].mean() + HEIGHT / 2
        left = (WIDTH - HEIGHT) / 2  # the middle crop is a square of the frame's height
        row = min(max(int(y / HEIGHT * grid[1]), 0), grid[1] - 1)
        column = min(max(int((x - left) / HEIGHT * grid[2]), 0), grid[2] - 1)
        cells.append((row, column))
    return cells


def measure(
    run: hv.LoadedRun,
    view: Tensor,
    target: int,
    cells: Sequence[tuple[int, int]],
    others: dict[str, Hiera],
    found: dict[str, list[float]],
) -> None:
    """Add the numbers of one video."""
    model = require_classifier(run.model)
    grid = model.config.unit_grid
    maps: dict[str, np.ndarray] = {}
    for name, options in METHODS.items():
        mine = explain_clip(run, view, target, name, **options).maps  # type: ignore[arg-type]
        for kind, other in others.items():
            if kind == "new head" and name != "evidence":
                continue
            theirs = explain_clip(replace(run, model=other), view, target, name, **options).maps  # type: ignore[arg-type]
            found[f"{name}/{kind}"].append(rank_correlation(mine, theirs))
        if name in RANKING:
            maps[name] = reduce(
                mine, "t (h a) (w b) -> t h w", "sum", t=grid[0], h=grid[1], w=grid[2]
            )
    generator = np.random.default_rng(len(found["centre/deletion"]))
    noise = [generator.random(grid) for _ in range(RANDOM_ORDERS)]
    rows, columns = np.mgrid[: grid[1], : grid[2]]
    distance = np.hypot(rows - (grid[1] - 1) / 2, columns - (grid[2] - 1) / 2)
    # places at one distance are in random order
    centre = -distance + 1e-3 * generator.random(grid)
    orders = {**maps, "centre": centre, **{f"random{i}": one for i, one in enumerate(noise)}}
    curves = dict(zip(orders, areas(model, view, target, np.stack(list(orders.values())))))
    drawn = [curves.pop(f"random{i}") for i in range(RANDOM_ORDERS)]
    curves["random"] = np.mean(drawn, axis=0)
    for name, (deletion, insertion) in curves.items():
        found[f"{name}/deletion"].append(deletion)
        found[f"{name}/insertion"].append(insertion)
    for name, values in (*maps.items(), ("centre", centre), ("random", noise[0])):
        found[f"{name}/pointing"] += [
            float(np.unravel_index(frame.argmax(), frame.shape) == cell)
            for frame, cell in zip(values, cells)
        ]


def rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Return Spearman's correlation; of colours, the mean size of that of each component."""
    if one.ndim == 4:
        pairs = zip(np.moveaxis(one, -1, 0), np.moveaxis(two, -1, 0))
        return float(np.mean([abs(rank_correlation(a, b)) for a, b in pairs]))
    ranks = [values.ravel().argsort().argsort() for values in (one, two)]
    return float(np.corrcoef(ranks)[0, 1])


@torch.inference_mode()
def areas(model: Hiera, view: Tensor, target: int, orders: np.ndarray) -> np.ndarray:
    """Return the mean probability of the target while units are deleted, and inserted.

    Args:
        model: The classifier.
        view: [C, T, S, S].
        target: Index of the class.
        orders: [N, t, h, w] values; the units of the largest are deleted or inserted first.

    Returns:
        [N, 2].
    """
    values = torch.from_numpy(orders).flatten(1)
    ranks = values.argsort(dim=1, descending=True).argsort(dim=1)
    units, steps = ranks.shape[1], []
    for step in range(1, STEPS):
        count = units * step // STEPS
        # as many units are shown after the deletion of all but `count`
        keep = torch.cat([ranks >= units - count, ranks < count])
        clips = view.expand(len(keep), *view.shape)
        features = model.encode(clips, keep=keep)[-1]
        steps.append(model.forward_head(features).softmax(1)[:, target].view(2, -1))
    return torch.stack(steps).mean(dim=0).T.numpy()


def summary(name: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Return the means of a method, and its differences from random and centre."""
    numbers: dict[str, Any] = {}
    for kind in ("new weights", "new head", "deletion", "insertion", "pointing"):
        if values := found.get(f"{name}/{kind}"):
            numbers[kind] = round(float(np.mean(values)), 4)
    if name in RANKING:
        for kind in ("deletion", "insertion"):
            for prior in ("random", "centre"):
                gap = np.subtract(found[f"{name}/{kind}"], found[f"{prior}/{kind}"])
                numbers[f"{kind} - {prior}"] = interval(gap, np.mean)
    return numbers


def interval(gap: np.ndarray, statistic: Callable[..., Any], draws: int = 2000) -> list[float]:
    """Return the mean over videos and its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(gap), (draws, len(gap)))
    means = statistic(gap[rows], axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(value), 4) for value in (gap.mean(), low, high)]


if __name__ == "__main__":
    main()
