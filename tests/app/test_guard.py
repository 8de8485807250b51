"""Requests that the page's server refuses, and the headers of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from hiera_video.app.guard import Guard, refusal
from hiera_video.app.uploads import Uploads

HOST = "127.0.0.1:7860"


def request(
    path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    given = {"host": HOST, **(headers or {})}
    encoded = [(key.encode(), value.encode()) for key, value in given.items()]
    return {"type": "http", "path": path, "method": method, "headers": encoded}


def test_what_the_page_needs_is_answered(uploads: Uploads) -> None:
    file = f"/gradio_api/file={uploads.folder}/examples/a.mp4"
    for path in ("/", "/theme.css", "/assets/index.js", "/gradio_api/heartbeat/x", file):
        assert refusal(request(path), uploads) is None, path
        assert refusal(request(path, "HEAD"), uploads) is None, path
    posted = {"content-length": "100", "origin": f"http://{HOST}"}
    for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
        assert refusal(request(path, "POST", posted), uploads) is None, path
    for host in ("localhost:8888", "[::1]:7860", "127.0.0.1"):  # a forwarded port is another one
        assert refusal(request("/", headers={"host": host}), uploads) is None, host


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/login",
        "/svelte/x.js",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/run/upload",
        "/gradio_api/call/upload",
        "/gradio_api/component_server",
        "/gradio_api/vibe-edit",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://example.org/a.mp4",
        "/gradio_api/file=",
        "/gradio_api/file/etc/passwd",
        "/assets/../../secret",
        "/assets/..\\secret",
        "/static/a\0b",
        "/gradio_api/heartbeat/../file=/etc/passwd",
    ],
)
def test_other_paths_are_refused(uploads: Uploads, path: str) -> None:
    length = {"content-length": "1"}
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        assert refusal(request(path, method, length), uploads) == (404, "no such page"), method


def test_files_outside_the_uploads_are_refused(uploads: Uploads) -> None:
    folder = uploads.folder
    for file in (f"{folder}/../secret", f"{folder}2/a.mp4", f"{folder}/a/../../b", f"{folder}"):
        assert refusal(request(f"/gradio_api/file={file}"), uploads) == (404, "no such page"), file


def test_other_hosts_and_origins_are_refused(uploads: Uploads) -> None:
    """DNS rebinding has a name of its own in Host; a page elsewhere has its address in Origin."""
    for host in (
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "",
        "[",
        "10.0.0.1",
    ):
        refused = refusal(request("/", headers={"host": host}), uploads)
        assert refused == (403, "this page answers on 127.0.0.1 alone"), host
    for origin in (
        "https://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "https://127.0.0.1:7860",
    ):
        found = refusal(
            request("/gradio_api/upload", "POST", {"origin": origin, "content-length": "1"}),
            uploads,
        )
        assert found == (403, "this page answers its own requests alone"), origin
    assert refusal({**request("/"), "type": "websocket"}, uploads) == (403, "not http")


def test_long_requests_are_refused(uploads: Uploads) -> None:
    def post(path: str, length: str | None) -> tuple[int, str] | None:
        headers = {} if length is None else {"content-length": length}
        return refusal(request(f"/gradio_api/{path}", "POST", headers), uploads)

    missing = (411, "the length of the request is missing")
    assert post("upload", None) == post("queue/join", None) == post("upload", "-1") == missing
    assert post("upload", "1065536") is None  # 1 MB and its form
    assert post("upload", "1065537") == (413, "the file has more than 1 MB; cut or compress it")
    assert post("queue/join", str(1 << 20)) is None
    assert post("queue/join", str((1 << 20) + 1)) == (413, "the request is too long")
    for number in range(11):
        (uploads.folder / str(number)).mkdir()
        (uploads.folder / str(number) / "a.mp4").write_bytes(b"x" * 1_000_000)
    assert post("upload", "100") == (
        503,
        "too many uploads wait for an answer; try again in some minutes",
    )


@pytest.mark.parametrize(
    "answer, kept",
    [('["%s"]', True), ("too large", False), ("{}", False), ("[1]", False), ("", False)],
)
def test_uploads_wait_before_their_paths_are_sent(
    uploads: Uploads, answer: str, kept: bool
) -> None:
    upload = uploads.folder / "hash" / "a.mp4"
    upload.parent.mkdir()
    upload.touch()
    with uploads.arriving() as expect:
        expect([str(upload)])
    body = answer.replace("%s", str(upload)).encode()

    async def gradio(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            uploads.remove(upload)  # the answer to the earlier upload of these bytes
            assert upload.exists()

    scope = request("/gradio_api/upload", "POST", {"content-length": "9"})
    asyncio.run(Guard(gradio, uploads)(scope, None, send))  # type: ignore[arg-type]
    assert upload.exists() == kept


def test_answers_have_a_policy(uploads: Uploads) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    def answer(path: str) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(Guard(page, uploads)(request(path), None, send))  # type: ignore[arg-type]
        return sent

    for path, status, body in (("/", 200, b"page"), ("/docs", 404, b"no such page")):
        start, content = answer(path)
        headers = dict(start["headers"])
        assert (start["status"], content["body"]) == (status, body)
        policy = headers[b"content-security-policy"].decode()
        assert policy.startswith("default-src 'self'; ") and "connect-src 'self'" in policy
        assert "http" not in policy and "*" not in policy
        assert headers[b"x-content-type-options"] == b"nosniff"
