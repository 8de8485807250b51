"""The Ray engine on a local cluster of two nodes with one CPU each: `make test-ray`."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

import hiera_video as hv
from hiera_video.config.schema import Config
from hiera_video.errors import FeatureError
from hiera_video.features import engine_ray
from hiera_video.features.shard_reading import PART_BYTES, ReadWindows
from hiera_video.workflows.extract import read_input, run_extraction
from hiera_video.workflows.extraction_plan import make_encoder, make_plan

from .conftest import UNREADABLE

MakeConfig = Callable[..., Config]
AGENTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)


def node() -> dict[str, Any]:
    """Return the options of a node with one CPU and a small object store.

    The ports of its agents are fixed: a busy machine starts the agents more slowly than Ray waits
    for them to report their ports.
    """
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in AGENTS]
    ports = {name: probe.getsockname()[1] for name, probe in zip(AGENTS, probes)}
    for probe in probes:
        probe.close()
    return {"num_cpus": 1, "object_store_memory": 80 << 20, **ports}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    nodes = Cluster(initialize_head=True, head_node_args={**node(), "include_dashboard": False})
    nodes.add_node(**node())
    ray.init(address=nodes.address, log_to_driver=False)
    yield
    ray.shutdown()
    nodes.shutdown()


def contents(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*.*")
        if path.is_file()
    }


def test_two_nodes_give_the_bytes_of_one_process(
    reference_store: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(tmp_path / "out")
    assert run_extraction(config, read_input(config), engine="ray", actors=2) == 0
    assert contents(tmp_path / "out") == contents(reference_store)
    (tmp_path / "out" / "shards" / "00000" / "00000001.json").unlink()  # as after an interruption
    # one of the three remaining videos is unreadable
    assert run_extraction(config, read_input(config), engine="ray", actors=1) == 3
    assert contents(tmp_path / "out") == contents(reference_store)


def test_a_users_mistake_in_an_actor_is_raised(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "out", "features.dtype=fp16")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shards").write_text("in the way")
    with pytest.raises(FeatureError, match="cannot be written"):
        run_extraction(config, read_input(config), engine="ray", actors=1)


@pytest.mark.parametrize(
    ("store", "cpus", "actors", "expected"),
    [(0, 2, 1, 2), (100 * PART_BYTES, 16, 2, 16), (100 * PART_BYTES, 64, 2, 25)],
)
def test_reading_ahead_is_bounded_by_the_object_store(
    monkeypatch: pytest.MonkeyPatch, store: int, cpus: int, actors: int, expected: int
) -> None:
    resources = {"object_store_memory": store, "CPU": cpus}
    monkeypatch.setattr(engine_ray, "_cluster_resources", lambda: resources)
    assert engine_ray._max_pending(actors) == expected


def test_video_that_hangs_costs_its_own_row(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "out", "data.deadline_seconds=5", "features.max_broken=0.3")
    videos = read_input(config)
    hung = videos.records[2].path

    class HangingReader(ReadWindows):
        def _open(self, record: Any) -> Any:
            if record.path == hung:
                ctypes.PyDLL(None).sleep(1000)
            return super()._open(record)

    plan = make_plan(config, videos, make_encoder(config))
    plan.read.__class__ = HangingReader
    stats = engine_ray.run_ray(plan, lambda: make_encoder(config), actors=1)
    store = hv.FeatureStore(tmp_path / "out")
    assert stats.unreadable == 2 and store.is_complete
    assert (store[2].reason, store[UNREADABLE].reason) == ("hung", "container")
    assert len(store[3].features) == 6
