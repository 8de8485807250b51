"""A visitor of the page without a browser, who uploads files and asks as gradio's page does."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from hiera_video.app.uploads import AppLimits

LIMITS = AppLimits(max_mb=1.0, max_seconds=8.0)
NAMES = ("to the left", "<b>up</b>", "${document.title}")
"""Names of classes, two of which a page could take for its own text."""
PARTS = (
    *("state", "answer", "timeline", "has_evidence", "target", "evidence"),
    *("has_reconstruction", "reconstruction", "near"),
)
"""Outputs of the page's answer, in order."""


class Visitor:
    """Asks a page at `address`."""

    def __init__(self, address: str, session: str = "visitor") -> None:
        self._client = httpx.Client(base_url=address, timeout=120, trust_env=False)
        self._session = session
        dependencies = self._client.get("/config").json()["dependencies"]
        self._functions = {item["targets"][0][1]: item["id"] for item in dependencies}

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, path, **options)

    def upload(self, name: str, content: bytes) -> httpx.Response:
        return self._client.post("/gradio_api/upload", files={"files": (name, content)})

    def ask(self, path: str, *, event: str = "upload", data: Any = None) -> dict[str, Any]:
        """Return the page's parts for a file of the server, or {"error": …}."""
        video = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {
            "fn_index": self._functions[event],
            "session_hash": self._session,
            "data": [video, 0.5] if data is None else data,
        }
        joined = self._client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            return {"error": joined.text}
        query = {"session_hash": self._session}
        with self._client.stream("GET", "/gradio_api/queue/data", params=query) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    output = message["output"]
                    return (
                        dict(zip(PARTS, output["data"]))
                        if message["success"] and "data" in output
                        else {"error": str(output.get("error"))}
                    )
        return {"error": "no answer"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def served(arguments: Sequence[str], folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `hiera-video app` with `folder` as current and temporary folder; yield its address."""
    command = [sys.executable, "-m", "hiera_video", "app", "--port", str(free_port()), *arguments]
    temporary = folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=(folder / "log.txt").open("w"),
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, (folder / "log.txt").read_text()
        yield address[0], process
    finally:
        process.terminate()
        process.wait(300)
