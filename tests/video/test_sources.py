"""Videos in local and remote tar shards: the same frames, times and reasons as the files."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from corpus import READABLE, UNREADABLE

from hiera_video.data.dataset import TestViews, UnreadableVideo, VideoViews
from hiera_video.data.manifest.read import read_manifest
from hiera_video.data.manifest.record import Manifest, Record
from hiera_video.data.prepare.tar_writer import write_shards
from hiera_video.data.sampling import ClipConfig
from hiera_video.data.transforms.train_eval import EvalTransform
from hiera_video.errors import ConfigError, DecodeError
from hiera_video.video import open_video, sources
from hiera_video.video.encode import write_video
from hiera_video.video.options import FrameFolder, ShardVideo
from hiera_video.video.pyav import PyAVReader
from hiera_video.video.reader import Limits


@pytest.fixture(scope="module")
def shard_corpus(
    corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ShardVideo]:
    """The regular files of the corpus in a tar shard."""
    names = [
        name
        for name in (*READABLE, *UNREADABLE)
        if corpus[name].is_file() and name != "no_permission.mp4"
    ]
    records = tuple(
        Record(path=str(corpus[name]), label=None, row=row) for row, name in enumerate(names)
    )
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="corpus")
    index = write_shards(manifest, tmp_path_factory.mktemp("corpus_tars"), "all")
    found = {}
    for name, record in zip(names, read_manifest(str(index)).records):
        assert record.shard_video is not None
        found[name] = record.shard_video
    return found


@pytest.mark.parametrize("is_remote", [False, True], ids=["local", "remote"])
def test_frames_times_and_reasons_equal_those_of_the_files(
    corpus: dict[str, Path], shard_corpus: dict[str, ShardVideo], is_remote: bool
) -> None:
    for name, video in shard_corpus.items():
        source = video
        if is_remote:
            source = ShardVideo(
                shard=f"file://{video.shard}",
                member=video.member,
                offset=video.offset,
                size=video.size,
            )
        try:
            with open_video(corpus[name]) as reader:
                info, times = reader.info, reader.times
                frames = reader.frames(range(0, len(times), 7))
        except DecodeError as error:
            with pytest.raises(DecodeError) as caught, open_video(source) as reader:
                reader.frames(range(len(reader.times)))
            assert caught.value.reason == error.reason, name
            assert str(caught.value).startswith(f"{source.path}: ")
            continue
        with PyAVReader(source, kept_bytes=0 if is_remote else 1 << 30) as reader:
            assert (reader.info, reader.times) == (info, times), name
            assert np.array_equal(reader.frames(range(0, len(times), 7)), frames), name


def test_videos_in_shards_are_closed(shard_corpus: dict[str, ShardVideo]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    names = ("h264_bframes.mp4", "vp8.webm", "text.mp4", "hole.mp4", "truncated_50.mp4", "live.mkv")
    for name in names * 5:
        with suppress(DecodeError), PyAVReader(shard_corpus[name], kept_bytes=0) as video:
            video.frames([3, 30])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_name_of_shard_and_member_opens_the_video(shards_index: Path, tmp_path: Path) -> None:
    record = read_manifest(str(shards_index)).records[4]
    with open_video(record.path) as by_name, open_video(record.source) as by_offset:
        assert np.array_equal(by_name.frames([0, 7]), by_offset.frames([0, 7]))
    shard = record.path.partition("!")[0]
    with pytest.raises(DecodeError, match=r"train-00000\d.tar does not contain x.mp4") as caught:
        open_video(f"{shard}!x.mp4")
    assert caught.value.reason == "missing"
    (tmp_path / "no.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DecodeError, match="its shard is not a readable tar file") as caught:
        open_video(tmp_path / "no.tar!x.mp4")
    assert caught.value.reason == "container"


def test_a_plain_file_may_have_a_name_like_a_member(videos: Any) -> None:
    with open_video(videos.write("a.tar!b.mp4", 2)) as video:
        assert video.info.num_frames == 2


def test_a_file_slice_behaves_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(bytes(range(100)))
    video = ShardVideo(shard=str(tmp_path / "x.tar"), member="a.mp4", offset=20, size=30)
    with sources.FileSlice(video) as file:
        assert file.read(5) == bytes(range(20, 25)) and file.tell() == 5
        assert file.seek(-3, 2) == 27
        assert file.read(100) == bytes(range(47, 50)) and file.read(1) == b""
        assert file.seek(-10, 1) == 20 and file.read() == bytes(range(40, 50))
        assert file.seek(40) == 40 and file.read(5) == b""  # beyond the slice
        with pytest.raises(ValueError, match="seek to -1, before the video's first byte"):
            file.seek(-1)


def test_other_backends_refuse_shards(shards_index: Path) -> None:
    record = read_manifest(str(shards_index)).records[0]
    words = "does not read videos in shards; set data.decoder=pyav"
    for backend in ("decord", "torchcodec", "frames", FrameFolder()):
        with pytest.raises(ConfigError, match=words):
            open_video(record.source, backend)


@contextmanager
def web_server(folder: Path, ranges: list[str]) -> Iterator[int]:
    """Serve `folder` on the yielded port and record the requested ranges."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (folder / self.path.lstrip("/")).read_bytes()
            ranges.append(self.headers["Range"] or "all")
            if self.headers["Range"]:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                content = content[int(first) : int(last) + 1]
            self.send_response(206 if self.headers["Range"] else 200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class WebFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Range requests with the standard library; fsspec's own needs a package."""

    protocol = "web"

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        headers = {} if start is None else {"Range": f"bytes={start}-{int(end or 0) - 1}"}
        request = urllib.request.Request(f"http://{path.removeprefix('web://')}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return bytes(response.read())


def test_a_video_on_a_web_server_takes_one_range_request(shards_index: Path) -> None:
    fsspec.register_implementation("web", WebFileSystem, clobber=True)
    ranges: list[str] = []
    with web_server(shards_index.parent, ranges) as port:
        record = read_manifest(f"web://127.0.0.1:{port}/{shards_index.name}").records[3]
        local_record = read_manifest(str(shards_index)).records[3]
        with open_video(record.source) as video, open_video(local_record.source) as local:
            assert np.array_equal(video.frames([0, 5]), local.frames([0, 5]))
    video = record.shard_video
    assert ranges == ["all", f"bytes={video.offset - 512}-{video.offset + video.size - 1}"]


def test_missing_cut_and_exchanged_shards(copied_index: Path, served_shards: str) -> None:
    local = read_manifest(str(copied_index)).records[0]
    remote = read_manifest(f"{served_shards}/{copied_index.name}").records[0]
    shard, memory = Path(local.path.partition("!")[0]), fsspec.filesystem("memory")
    served = f"/served/{shard.name}"
    content = shard.read_bytes()

    def check(reason: str, words: str) -> None:
        for record in (local, remote):
            with pytest.raises(DecodeError, match=words) as caught:
                open_video(record.source)
            assert caught.value.reason == reason
            assert str(caught.value).startswith(record.path)

    def replace_shards(data: bytes) -> None:
        shard.write_bytes(data)
        memory.pipe(served, data)

    shard.unlink()
    memory.rm(served)
    check("missing", "its shard cannot be read")
    replace_shards(content[:2000])
    words = r"its shard has 2000 bytes, and the video lies at 512 to \d+; download the shard again"
    check("truncated", words)
    replace_shards(content.replace(b"0000000_v_0_x.mp4", b"0000000_v_9_x.mp4"))
    words = "not at byte 512 of its shard, as the index says; index and shards do not belong"
    check("container", words)


def test_a_missing_shard_leaves_the_videos_of_the_others_readable(copied_index: Path) -> None:
    manifest = read_manifest(str(copied_index))
    transform = EvalTransform(32, 2, (0.45,) * 3, (0.225,) * 3)
    clip = ClipConfig(num_frames=2, frame_stride=2)
    dataset = TestViews(manifest, clip, transform, num_clips=1)
    Path(manifest.records[0].path.partition("!")[0]).unlink()
    first = dataset[0]
    assert isinstance(first, UnreadableVideo) and first.reason == "missing"
    assert isinstance(dataset[6], VideoViews)


def test_a_disk_error_while_decoding_makes_the_video_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    # larger than FFmpeg's read-ahead
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "set" / "a.mp4", noise)
    index = write_shards(read_manifest(str(tmp_path / "set")), tmp_path / "shards", "train")
    record = read_manifest(str(index)).records[0]
    assert record.shard_video is not None

    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    with PyAVReader(record.shard_video, kept_bytes=0) as video:
        monkeypatch.setattr("os.pread", fail)
        with pytest.raises(DecodeError, match="Input/output error") as caught:
            video.frames([len(video.times) - 1])
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (FileNotFoundError(), "missing", r"its shard cannot be read \(s3://b/x.tar: no such file"),
        (PermissionError("no key"), "permission", r"access to its shard was denied \(no key\)"),
        (OSError("busy"), "unreachable", r"its storage does not respond \(busy\)"),
    ],
)
def test_errors_of_remote_storage(
    error: OSError, reason: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(sources, "fetch", fail)
    with pytest.raises(DecodeError, match=words) as caught:
        open_video(ShardVideo(shard="s3://b/x.tar", member="a.mp4", offset=512, size=10))
    assert caught.value.reason == reason


def test_a_remote_video_over_the_memory_limit_is_not_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "fetch", lambda *_: pytest.fail("downloaded before the check"))
    video = ShardVideo(shard="s3://b/x.tar", member="a.mp4", offset=512, size=5 << 20)
    words = "5 MiB to download are over the limit of 1 MiB; download the shard"
    with pytest.raises(DecodeError, match=words) as caught:
        PyAVReader(video, limits=Limits(max_bytes=1 << 20))
    assert caught.value.reason == "too_large"
