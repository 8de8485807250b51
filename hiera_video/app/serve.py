"""Start the page's server, and end it without a trace."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hiera_video.app.uploads import AppLimits, Uploads
from hiera_video.errors import ConfigError

ADDRESS = "127.0.0.1"
SESSIONS = 8
"""Visitors whose last answer is kept, so that they can ask more about it."""


def prepare_environment(folder: Path) -> None:
    """Set what gradio reads from the environment when it is imported, and drop what others set."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",  # gradio asks its own server for the first page
        "no_proxy": "127.0.0.1,localhost",
    }
    for name in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def check_port(port: int) -> None:
    """Check that the port is free.

    Raises:
        ConfigError: Another program listens on it, or the user may not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except PermissionError as error:
            raise ConfigError(f"--port {port}: needs root; choose one above 1023") from error
        except OSError as error:
            raise ConfigError(
                f"--port {port}: in use by another program; choose another, such as "
                f"--port {port + 1 if port < 65535 else 7860}"
            ) from error


def serve(
    make: Callable[[Uploads], Any],
    *,
    limits: AppLimits,
    port: int,
    on_start: Callable[[str], None],
) -> None:
    """Serve the page until SIGINT or SIGTERM, then delete all uploads.

    Args:
        make: Makes the page, `gradio.Blocks`, for a folder of uploads; called once the environment
            is set.
        limits: Limits of the page.
        port: Port on 127.0.0.1.
        on_start: Called with the address once the page answers.

    Raises:
        ConfigError: The port is taken.
    """
    check_port(port)
    # a fork of a process with threads can deadlock: workers are forked from one without
    multiprocessing.set_forkserver_preload(["hiera_video.app.reading"])
    multiprocessing.set_start_method("forkserver", force=True)
    warm_up = multiprocessing.Process(target=os.getpid)
    warm_up.start()
    with tempfile.TemporaryDirectory(prefix="hiera-video-app-") as name:
        folder = Path(name).resolve()
        prepare_environment(folder)
        uploads = Uploads(folder, limits)
        page = make(uploads)
        address = launch(page, uploads, port)
        try:
            warm_up.join()  # the first upload need not wait until torch is imported once more
            on_start(address)
            _wait_for_signal()
        finally:
            with suppress(Exception):
                page.close(verbose=False)


def launch(page: Any, uploads: Uploads, port: int) -> str:
    """Start the server in a thread and return its address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from hiera_video.app.guard import Guard
    from hiera_video.app.html import CSS, SCRIPT
    from hiera_video.app.page import FONTS, MONO_FONTS

    _, address, _ = page.launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        max_file_size=uploads.limits.max_bytes,
        state_session_capacity=SESSIONS,
        allowed_paths=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        theme=gr.themes.Default(font=FONTS, font_mono=MONO_FONTS),
        css=CSS,
        head=SCRIPT,
        app_kwargs={"middleware": [Middleware(Guard, uploads=uploads)], "docs_url": None},
    )
    return str(address)


def _wait_for_signal() -> None:
    """Wait for SIGINT or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
