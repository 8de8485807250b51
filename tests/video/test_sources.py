"""Videos in tar shards, here and elsewhere: the frames, times and reasons of the files; storage that stumbles or lies."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from corpus import BROKEN, READABLE

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.utils import remote_files as remote
from hiera_video.video import open_video, sources
from hiera_video.video.encode import write_video
from hiera_video.video.options import FrameFolder, ShardVideo
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits


@pytest.fixture(scope="module")
def stored_corpus(
    corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ShardVideo]:
    names = [
        name
        for name in (*READABLE, *BROKEN)
        if corpus[name].is_file() and name != "no_permission.mp4"
    ]
    records = tuple(
        Record(path=str(corpus[name]), label=None, row=row) for row, name in enumerate(names)
    )
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="corpus")
    found = read_manifest(
        str(write_shards(manifest, tmp_path_factory.mktemp("corpus_tars"), "all"))
    )
    return {
        name: record.shard_video
        for name, record in zip(names, found.records)
        if record.shard_video is not None
    }


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_frames_times_and_reasons_are_those_of_the_files(
    corpus: dict[str, Path], stored_corpus: dict[str, ShardVideo], elsewhere: bool
) -> None:
    for name, stored in stored_corpus.items():
        if elsewhere:
            stored = ShardVideo(
                shard=f"file://{stored.shard}",
                member=stored.member,
                offset=stored.offset,
                size=stored.size,
            )
        try:
            with open_video(corpus[name]) as video:
                facts, times, frames = (
                    video.info,
                    video.times,
                    video.frames(range(0, len(video.times), 7)),
                )
        except DecodeError as error:
            with pytest.raises(DecodeError) as caught, open_video(stored) as video:
                video.frames(range(len(video.times)))
            assert caught.value.reason == error.reason, name
            assert str(caught.value).startswith(f"{stored.path}: ")
            continue
        with PyAVReader(stored, kept_bytes=0 if elsewhere else 1 << 30) as video:
            assert (video.info, video.times) == (facts, times), name
            assert np.array_equal(video.frames(range(0, len(times), 7)), frames), name


def test_opening_shards_leaves_no_file_open(stored_corpus: dict[str, ShardVideo]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in (
        "h264_bframes.mp4",
        "vp8.webm",
        "text.mp4",
        "hole.mp4",
        "truncated_50.mp4",
        "live.mkv",
    ) * 5:
        try:
            with PyAVReader(stored_corpus[name], kept_bytes=0) as video:
                video.frames([3, 30])
        except DecodeError:
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_name_that_predictions_give_opens(shards_index: Path, tmp_path: Path) -> None:
    record = read_manifest(str(shards_index)).records[4]
    with open_video(record.path) as by_name, open_video(record.source) as by_place:
        assert np.array_equal(by_name.frames([0, 7]), by_place.frames([0, 7]))
    shard = record.path.partition("!")[0]
    with pytest.raises(DecodeError, match=r"train-00000\d.tar does not contain x.mp4") as caught:
        open_video(f"{shard}!x.mp4")
    assert caught.value.reason == "missing"
    (tmp_path / "no.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DecodeError, match=r"its shard is not a readable tar file") as caught:
        open_video(tmp_path / "no.tar!x.mp4")
    assert caught.value.reason == "container"
    odd = tmp_path / "a.tar!b.mp4"  # a file may be called so
    with open_video(record.source) as video:
        write_video(odd, video.frames([0, 1]), fps=30)
    with open_video(odd) as video:
        assert video.info.num_frames == 2


def test_a_window_on_a_shard_is_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(bytes(range(100)))
    with sources.FileSlice(
        ShardVideo(shard=str(tmp_path / "x.tar"), member="a.mp4", offset=20, size=30)
    ) as window:
        assert window.read(5) == bytes(range(20, 25)) and window.tell() == 5
        assert (
            window.seek(-3, 2) == 27
            and window.read(100) == bytes(range(47, 50))
            and window.read(1) == b""
        )
        assert window.seek(-10, 1) == 20 and window.read() == bytes(range(40, 50))
        assert window.seek(40) == 40 and window.read(5) == b""  # nothing of what lies behind
        with pytest.raises(ValueError, match=r"seek to -1, before the video's first byte"):
            window.seek(-1)


def test_other_decoders_refuse(shards_index: Path) -> None:
    record = read_manifest(str(shards_index)).records[0]
    for backend in ("decord", "torchcodec", "frames", FrameFolder()):
        with pytest.raises(
            ConfigError, match=r"does not read videos in shards; set data.decoder=pyav"
        ):
            open_video(record.source, backend)


def test_shards_from_a_web_server(shards_index: Path) -> None:
    """A server that understands ranges, a client of the standard library's in the place of fsspec's."""
    import urllib.request

    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (shards_index.parent / self.path.lstrip("/")).read_bytes()
            asked.append(self.headers["Range"] or "all")
            if self.headers["Range"]:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                content = content[int(first) : int(last) + 1]
            self.send_response(206 if self.headers["Range"] else 200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Web(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "web"

        def cat_file(
            self, path: str, start: int | None = None, end: int | None = None, **_: Any
        ) -> bytes:
            headers = {} if start is None else {"Range": f"bytes={start}-{int(end or 0) - 1}"}
            request = urllib.request.Request(
                f"http://{path.removeprefix('web://')}", headers=headers
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bytes(answer.read())

    fsspec.register_implementation("web", Web, clobber=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        manifest = read_manifest(f"web://127.0.0.1:{server.server_port}/{shards_index.name}")
        with (
            open_video(manifest.records[3].source) as video,
            open_video(read_manifest(str(shards_index)).records[3].source) as local,
        ):
            assert np.array_equal(video.frames([0, 5]), local.frames([0, 5]))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    stored = manifest.records[3].shard_video
    assert stored is not None
    assert asked == [
        "all",
        f"bytes={stored.offset - 512}-{stored.offset + stored.size - 1}",
    ]  # one request a video


def test_what_goes_wrong_while_training(
    copied_index: Path, served_shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (
        read_manifest(str(copied_index)),
        read_manifest(f"{served_shards}/{copied_index.name}"),
    )
    fs = fsspec.filesystem("memory")
    shard = Path(here.records[0].path.partition("!")[0])
    content = shard.read_bytes()
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)

    def fails(change: Any, reason: str, words: str) -> None:
        for manifest in (here, there):
            change(manifest is there)
            with pytest.raises(DecodeError, match=words) as caught:
                open_video(manifest.records[0].source)
            assert caught.value.reason == reason
            assert str(caught.value).startswith(manifest.records[0].path)
            shard.write_bytes(content)
            fs.pipe("/served/train-000000.tar", content)

    def put(data: bytes) -> Any:
        return lambda away: (
            fs.pipe("/served/train-000000.tar", data) if away else shard.write_bytes(data)
        )

    fails(
        lambda away: fs.rm("/served/train-000000.tar") if away else shard.unlink(),
        "missing",
        "its shard cannot be read",
    )
    fails(
        put(content[:2000]),
        "truncated",
        r"its shard has 2000 bytes, and the video lies at 512 to \d+; download the shard",
    )
    other = content.replace(b"0000000_v_0_x.mp4", b"0000000_v_9_x.mp4")
    fails(
        put(other),
        "container",
        "not at byte 512 of its shard, as the index says; index and shards do not belong",
    )
    transform = EvalTransform(32, 2, (0.45,) * 3, (0.225,) * 3)
    dataset = TestViews(here, ClipConfig(num_frames=2, frame_stride=2), transform, num_clips=1)
    shard.unlink()
    broken = dataset[0]
    assert (
        isinstance(broken, UnreadableVideo)
        and broken.reason == "missing"
        and isinstance(dataset[6], VideoViews)
    )


def test_a_disk_that_fails_in_the_middle_costs_the_video_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    noise = np.random.default_rng(0).integers(
        0, 255, (60, 64, 64, 3), dtype=np.uint8
    )  # more than FFmpeg reads ahead
    write_video(tmp_path / "set" / "a.mp4", noise)
    index = write_shards(read_manifest(str(tmp_path / "set")), tmp_path / "shards", "train")
    record = read_manifest(str(index)).records[0]
    assert record.shard_video is not None

    def fails(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    with PyAVReader(record.shard_video, kept_bytes=0) as video:
        monkeypatch.setattr("os.pread", fails)
        with pytest.raises(DecodeError, match="Input/output error") as caught:
            video.frames([len(video.times) - 1])
    assert caught.value.reason == "corrupt"


class Stumbling:
    """A file system whose first answers fail."""

    def __init__(self, failures: list[Exception], content: bytes) -> None:
        self.failures, self.content = failures, content

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        return self.content[start:end]


def test_a_storage_that_stumbles(shards_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    local = read_manifest(str(shards_index)).records[0].shard_video
    assert local is not None
    content = Path(local.shard).read_bytes()
    stored = ShardVideo(
        shard="s3://b/x.tar", member=local.member, offset=local.offset, size=local.size
    )

    def behaves(*failures: Exception) -> None:
        system = Stumbling(list(failures), content)
        monkeypatch.setattr(remote, "_file_system", lambda url: (system, url))

    behaves(TimeoutError("slow"), RuntimeError("busy"))
    with open_video(stored) as video:
        assert len(video.frames([0, 3])) == 2
    behaves(*[RuntimeError("busy")] * 3)
    with pytest.raises(
        DecodeError, match=r"its storage does not respond .RuntimeError: busy."
    ) as caught:
        open_video(stored)
    assert caught.value.reason == "unreachable"
    behaves(PermissionError("no key"))
    with pytest.raises(DecodeError, match=r"access to its shard was denied .no key.") as caught:
        open_video(stored)
    assert caught.value.reason == "permission"
    with pytest.raises(
        DecodeError,
        match=r"0 MiB to download are over the limit of 0 MiB; download the shard",
    ):
        PyAVReader(stored, limits=Limits(max_bytes=100))
