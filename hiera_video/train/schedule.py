"""Learning-rate schedule of a run."""

from __future__ import annotations

import math


def lr_at(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    peak: float,
    start: float,
    end: float,
    cosine_after_warmup: bool = True,
) -> float:
    """Return the learning rate at `step`: a linear warm-up, then half a cosine.

        peak ┤    .-‾-.
             │   /     ‾-.
             │  /         ‾-._
       start ┤ /              ‾‾ end
             └───┴──────────────┴
               warmup_steps  total_steps

    Args:
        step: Optimizer step, 0 to total_steps - 1.
        total_steps: Steps of the run.
        warmup_steps: Steps of the warm-up.
        peak: Learning rate at the end of the warm-up.
        start: Learning rate of step 0, if there is a warm-up.
        end: Learning rate that the cosine approaches at `total_steps`.
        cosine_after_warmup: The cosine starts where the warm-up ends, as in PySlowFast's recipes
            for masked pre-training, for fine-tuning from it and for Something-Something
            (`COSINE_AFTER_WARMUP: True`). If false (PySlowFast's default), it spans all steps and
            the warm-up replaces its beginning, ending a little below `peak`.
    """
    first = warmup_steps if cosine_after_warmup else 0

    def cosine(at: int) -> float:
        angle = math.pi * (at - first) / max(total_steps - first, 1)
        return end + (peak - end) * (math.cos(angle) + 1) / 2

    if step < warmup_steps:
        return start + (cosine(warmup_steps) - start) * step / warmup_steps
    return cosine(step)
