"""`metrics.jsonl`: each step stands there once, whatever was killed when."""

from __future__ import annotations

from pathlib import Path

from hiera_video.runtime.log import MetricLog, read_metrics


def test_a_continued_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, first_step=0)
    for step in range(5):
        log.write(step, "train", loss=step / 2, loss_hex=(step / 2).hex())
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spl')  # cut short by a kill
    log = MetricLog(tmp_path, first_step=3)
    log.write(3, "train", loss=9.0)
    log.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["loss_hex"] == "0x1.0000000000000p-1" and rows[3]["loss"] == 9.0
    assert any((tmp_path / "tensorboard").iterdir())
