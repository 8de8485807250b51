"""What the page's server answers: a few paths, to pages of its own, on this machine alone.

gradio has many more routes: a proxy, a monitor, code editing, file access. They are closed here, in
front of it, so that their faults cannot matter. The policy in the headers keeps the browser from
any other server.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from hiera_video.app.uploads import Uploads
from hiera_video.utils.text_files import is_text

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

API = "/gradio_api"
UPLOAD = f"{API}/upload"
PATHS = {
    "/": "GET",
    "/config": "GET",
    "/favicon.ico": "GET",
    "/manifest.json": "GET",
    "/theme.css": "GET",
    f"{API}/theme.css": "GET",
    f"{API}/startup-events": "GET",
    f"{API}/info": "GET",
    f"{API}/queue/join": "POST",
    f"{API}/queue/data": "GET",
    f"{API}/cancel": "POST",
    f"{API}/reset": "POST",
    UPLOAD: "POST",
    f"{API}/upload_progress": "GET",
}
"""Path → method."""
FOLDERS = ("/assets/", "/static/", f"{API}/heartbeat/")
FILES = f"{API}/file="
HOSTS = ("127.0.0.1", "localhost", "::1")
MAX_BODY = 1 << 20
"""Bytes of a request that is no upload."""
ENVELOPE = 1 << 16
"""Bytes that the form around an upload may take."""
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # as gradio's pages are made
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI middleware that answers what `refusal` refuses, and adds `HEADERS` to the rest.

    Args:
        app: The page.
        uploads: Folder whose files may be read.
    """

    def __init__(self, app: Any, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = refusal(scope, self._uploads)
        if refused is not None:
            await _answer(send, *refused)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        if scope["method"] == "POST" and scope["path"] == UPLOAD:
            await self._count_uploads(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    async def _count_uploads(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the files of an upload wait for their answer, before their paths are sent."""
        body = b""

        async def send_counted(message: MutableMapping[str, Any]) -> None:
            nonlocal body
            body += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                expect(_paths_in(body))
            await send(message)

        with self._uploads.arriving() as expect:
            await self._app(scope, receive, send_counted)


def _paths_in(body: bytes) -> list[str]:
    """Return the paths in gradio's answer to an upload; none in that of a refused one."""
    try:
        paths = json.loads(body)
    except ValueError:
        return []
    return list(filter(is_text, paths)) if isinstance(paths, list) else []


def refusal(scope: Scope, uploads: Uploads) -> tuple[int, str] | None:
    """Return status and message for a request that is not answered; None for one that is."""
    if scope["type"] != "http":
        return 403, "not http"
    headers = {key.decode("latin-1").lower(): value for key, value in scope["headers"]}
    host = headers.get("host", b"").decode("latin-1")
    if not _is_local(f"//{host}"):
        return 403, "this page answers on 127.0.0.1 alone"
    origin = headers.get("origin")
    if origin is not None and origin.decode("latin-1") != f"http://{host}":
        return 403, "this page answers its own requests alone"
    path, method = scope["path"], scope["method"]
    if not _is_known(path, method, uploads):
        return 404, "no such page"
    if method != "POST":
        return None
    return _check_length(headers.get("content-length"), path, uploads)


def _is_local(url: str) -> bool:
    try:
        return urlsplit(url).hostname in HOSTS
    except ValueError:
        return False


def _is_known(path: str, method: str, uploads: Uploads) -> bool:
    known = "GET" if method == "HEAD" else method
    if path in PATHS:
        return PATHS[path] == known
    if known != "GET" or "\\" in path or "\0" in path:
        return False
    if path.startswith(FILES):
        file = path.removeprefix(FILES)
        return os.path.normpath(file) == file and file.startswith(f"{uploads.folder}/")
    return path.startswith(FOLDERS) and os.path.normpath(path) == path


def _check_length(length: bytes | None, path: str, uploads: Uploads) -> tuple[int, str] | None:
    if length is None or not length.isdigit():
        return 411, "the length of the request is missing"
    if path != UPLOAD:
        return (413, "the request is too long") if int(length) > MAX_BODY else None
    limits = uploads.limits
    if int(length) > limits.max_bytes + ENVELOPE:
        return 413, f"the file has more than {limits.max_mb:g} MB; cut or compress it"
    uploads.sweep()
    if uploads.are_full():
        return 503, "too many uploads wait for an answer; try again in some minutes"
    return None


async def _answer(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": message.encode()})
