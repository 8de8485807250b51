"""Tar shards: the same batches as the files that they are made of, from here and from elsewhere; damage is told."""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from corpus import BROKEN, READABLE

from hiera_video.data import remote, shards
from hiera_video.data.clips import ClipConfig
from hiera_video.data.dataset import BrokenVideo, TestViews, TrainClips, VideoViews
from hiera_video.data.decode import open_video, sources
from hiera_video.data.decode.protocol import Limits
from hiera_video.data.decode.pyav import PyAVReader
from hiera_video.data.decode.settings import FrameFolder, StoredVideo
from hiera_video.data.encode import write_video
from hiera_video.data.loader import BatchPlan, test_loader, train_loader
from hiera_video.data.manifest import Manifest, Record, read_manifest
from hiera_video.data.shards import write_shards
from hiera_video.data.shards_index import part_of_index
from hiera_video.data.transforms import EvalTransform
from hiera_video.errors import ConfigError, DecodeError, ManifestError

CLIP = ClipConfig(num_frames=2, frame_stride=2)


def small(frames: Any, generator: random.Random) -> torch.Tensor:
    clip = torch.from_numpy(np.ascontiguousarray(frames[:, ::4, ::4])).permute(3, 0, 1, 2).float()
    return clip + generator.random()


TWO_CROPS = EvalTransform(32, 2, (0.45,) * 3, (0.225,) * 3)


@pytest.fixture(scope="module")
def manifest(shared_videos: Any) -> Manifest:
    """Seven videos in two class folders that have the same names, one of them with two stretches."""
    for i in range(6):
        shared_videos.write(f"shards/{'ab'[i % 2]}/v {i // 2}.x.mp4", 12 + i)
    shared_videos.write("shards/c.mkv", 20)
    listing = shared_videos.folder / "shards/list.csv"
    listing.write_text(
        "".join(f"{'ab'[i % 2]}/v {i // 2}.x.mp4 {i % 2}\n" for i in range(6)) + "c.mkv 2 0 0.3\nc.mkv 1 0.3 0.6\n"
    )
    (shared_videos.folder / "shards/labels.txt").write_text("up\ndown\nround\n")
    return read_manifest(str(listing))


@pytest.fixture(scope="module")
def index(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(manifest, tmp_path_factory.mktemp("tars"), "train", shard_bytes=60_000)


def copied(index: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for path in index.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / index.name


def batches(manifest: Manifest, workers: int, first: int = 0) -> list[str]:
    dataset = TrainClips(manifest, CLIP, small, seed=3)
    plan = BatchPlan(num_records=len(manifest.records), batch_size=4, seed=3)
    steps = train_loader(dataset, plan, first_step=first, last_step=5, workers=workers)
    return [
        hashlib.sha256(b"".join(t.numpy().tobytes() for b in step for t in (b.clips, b.labels, b.row))).hexdigest()
        for step in steps
    ]


def views(manifest: Manifest, workers: int) -> list[Any]:
    dataset = TestViews(manifest, CLIP, TWO_CROPS, num_clips=2)
    found: Iterable[Any] = test_loader(dataset, workers=workers, rows=range(len(manifest.records)))
    return [(view.row, view.clip_seconds, view.views.numpy().tobytes()) for view in found]


def test_the_manifest_is_the_same_but_for_where_the_videos_lie(manifest: Manifest, index: Path) -> None:
    found = read_manifest(str(index))
    assert (found.class_names, found.multi_label) == (("up", "down", "round"), False)
    facts = [(r.label, r.row, r.start_seconds, r.end_seconds) for r in found.records]
    assert facts == [(r.label, r.row, r.start_seconds, r.end_seconds) for r in manifest.records]
    assert found.records[0].path == f"{index.parent}/train-000000.tar!0000000_v_0_x.mp4"
    assert found.records[6].stored == found.records[7].stored  # stored once
    sizes = [path.stat().st_size for path in sorted(index.parent.glob("*.tar"))]
    assert len(sizes) > 2 and max(sizes) <= 60_000


def test_batches_and_views_are_those_of_the_files(manifest: Manifest, index: Path) -> None:
    stored = read_manifest(str(index))
    expected = batches(manifest, 0)
    assert batches(stored, 0) == batches(stored, 2) == expected
    assert batches(stored, 2, first=3) == expected[3:]  # any position, without reading what lies before
    assert views(stored, 0) == views(stored, 2) == views(manifest, 0)


def test_the_shards_are_what_webdataset_reads(manifest: Manifest, index: Path) -> None:
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(index.parent.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")  # webdataset's rule: a key ends at its first dot
                file = tar.extractfile(member)
                assert member.isreg() and file is not None
                assert suffix not in samples.setdefault(key, {})
                samples[key][suffix] = file.read()
    assert [sorted(sample) for sample in samples.values()] == [["cls", "json", "mp4"]] * 6 + [["json", "mkv"]]
    first, last = list(samples.values())[1], list(samples.values())[-1]
    assert first["mp4"] == Path(manifest.records[1].path).read_bytes() and first["cls"] == b"1"
    assert json.loads(first["json"]) == {"file": "v 0.x.mp4", "row": 1, "label": 1, "class": "down"}
    assert [entry["end_seconds"] for entry in json.loads(last["json"])["records"]] == [0.3, 0.6]


@pytest.fixture
def served(index: Path) -> Iterator[str]:
    """The shards on a web server of this machine, as a file system of fsspec's that needs no package."""
    fs = fsspec.filesystem("memory")
    for path in index.parent.iterdir():
        fs.pipe(f"/served/{path.name}", path.read_bytes())
    yield "memory://served"
    fs.rm("/served", recursive=True)


def test_shards_elsewhere(manifest: Manifest, index: Path, served: str, tmp_path: Path) -> None:
    elsewhere = read_manifest(f"{served}/{index.name}")
    assert elsewhere.records[0].path == "memory://served/train-000000.tar!0000000_v_0_x.mp4"
    (tmp_path / index.name).write_bytes(index.read_bytes())
    rooted = read_manifest(str(tmp_path / index.name), root=f"{served}/")
    assert rooted.records == elsewhere.records
    assert batches(elsewhere, 0) == batches(elsewhere, 2) == batches(manifest, 0)
    by_url = read_manifest(f"file://{index}")
    assert by_url.records[0].path.startswith("file:///") and views(by_url, 2) == views(manifest, 0)


def test_shards_from_a_web_server(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that understands ranges, a client of the standard library's in the place of fsspec's."""
    import urllib.request

    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = (index.parent / self.path.lstrip("/")).read_bytes()
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

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
            headers = {} if start is None else {"Range": f"bytes={start}-{int(end or 0) - 1}"}
            request = urllib.request.Request(f"http://{path.removeprefix('web://')}", headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bytes(answer.read())

    fsspec.register_implementation("web", Web, clobber=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        manifest = read_manifest(f"web://127.0.0.1:{server.server_port}/{index.name}")
        with (
            open_video(manifest.records[3].source) as video,
            open_video(read_manifest(str(index)).records[3].source) as local,
        ):
            assert np.array_equal(video.frames([0, 5]), local.frames([0, 5]))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    stored = manifest.records[3].stored
    assert stored is not None
    assert asked == ["all", f"bytes={stored.offset - 512}-{stored.offset + stored.size - 1}"]  # one request a video


# -- every kind of video -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored_corpus(corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredVideo]:
    names = [name for name in (*READABLE, *BROKEN) if corpus[name].is_file() and name != "no_permission.mp4"]
    records = tuple(Record(path=str(corpus[name]), label=None, row=row) for row, name in enumerate(names))
    manifest = Manifest(records=records, class_names=None, multi_label=False, source="corpus")
    found = read_manifest(str(write_shards(manifest, tmp_path_factory.mktemp("corpus_tars"), "all")))
    return {name: record.stored for name, record in zip(names, found.records) if record.stored is not None}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_frames_times_and_reasons_are_those_of_the_files(
    corpus: dict[str, Path], stored_corpus: dict[str, StoredVideo], elsewhere: bool
) -> None:
    for name, stored in stored_corpus.items():
        if elsewhere:
            stored = StoredVideo(
                shard=f"file://{stored.shard}", member=stored.member, offset=stored.offset, size=stored.size
            )
        try:
            with open_video(corpus[name]) as video:
                facts, times, frames = video.info, video.times, video.frames(range(0, len(video.times), 7))
        except DecodeError as error:
            with pytest.raises(DecodeError) as caught, open_video(stored) as video:
                video.frames(range(len(video.times)))
            assert caught.value.reason == error.reason, name
            assert str(caught.value).startswith(f"{stored.path}: ")
            continue
        with PyAVReader(stored, kept_bytes=0 if elsewhere else 1 << 30) as video:
            assert (video.info, video.times) == (facts, times), name
            assert np.array_equal(video.frames(range(0, len(times), 7)), frames), name


def test_opening_shards_leaves_no_file_open(stored_corpus: dict[str, StoredVideo]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("h264_bframes.mp4", "vp8.webm", "text.mp4", "hole.mp4", "truncated_50.mp4", "live.mkv") * 5:
        try:
            with PyAVReader(stored_corpus[name], kept_bytes=0) as video:
                video.frames([3, 30])
        except DecodeError:
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_name_that_predictions_give_opens(index: Path, tmp_path: Path) -> None:
    record = read_manifest(str(index)).records[4]
    with open_video(record.path) as by_name, open_video(record.source) as by_place:
        assert np.array_equal(by_name.frames([0, 7]), by_place.frames([0, 7]))
    shard = record.path.partition("!")[0]
    with pytest.raises(DecodeError, match=r"train-00000\d.tar holds no x.mp4") as caught:
        open_video(f"{shard}!x.mp4")
    assert caught.value.reason == "missing"
    (tmp_path / "no.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(DecodeError, match=r"its shard is no tar file that can be read") as caught:
        open_video(tmp_path / "no.tar!x.mp4")
    assert caught.value.reason == "container"
    odd = tmp_path / "a.tar!b.mp4"  # a file may be called so
    with open_video(record.source) as video:
        write_video(odd, video.frames([0, 1]), fps=30)
    with open_video(odd) as video:
        assert video.info.num_frames == 2


def test_a_window_on_a_shard_is_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(bytes(range(100)))
    with sources._Window(StoredVideo(shard=str(tmp_path / "x.tar"), member="a.mp4", offset=20, size=30)) as window:
        assert window.read(5) == bytes(range(20, 25)) and window.tell() == 5
        assert window.seek(-3, 2) == 27 and window.read(100) == bytes(range(47, 50)) and window.read(1) == b""
        assert window.seek(-10, 1) == 20 and window.read() == bytes(range(40, 50))
        assert window.seek(40) == 40 and window.read(5) == b""  # nothing of what lies behind
        with pytest.raises(ValueError, match=r"seek to -1, before the video's first byte"):
            window.seek(-1)


def test_other_decoders_refuse(index: Path) -> None:
    record = read_manifest(str(index)).records[0]
    for backend in ("decord", "torchcodec", "frames", FrameFolder()):
        with pytest.raises(ConfigError, match=r"does not read videos in shards; set data.decoder=pyav"):
            open_video(record.source, backend)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    manifest: Manifest, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def dying(shard: Any, out: Any) -> None:
        written.append(shard.name)
        if len(written) == 3:
            out.write(b"half")
            raise KeyboardInterrupt
        write(shard, out)

    write = shards._write
    monkeypatch.setattr(shards, "_write", dying)
    with pytest.raises(KeyboardInterrupt):
        write_shards(manifest, tmp_path, "train", shard_bytes=60_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".train.unfinished.json", "train-000000.tar", "train-000001.tar",
    ]  # fmt: skip
    write_shards(manifest, tmp_path, "train", shard_bytes=60_000)
    assert written[3:] == written[2:3] + sorted(set(written))[3:] and len(set(written)) == len(written) - 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        p.name: p.read_bytes() for p in index.parent.iterdir()
    }
    del written[:]
    write_shards(manifest, tmp_path, "train", shard_bytes=60_000)
    assert written == []  # all there


def test_what_cannot_be_written(manifest: Manifest, index: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds shards 'train' of other videos or another shard size; remove them or"
    ):
        write_shards(manifest, index.parent, "train", shard_bytes=50_000)
    (tmp_path / "x-000000.tar").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"x-000000.tar: is there already, without an index; remove it or choose"):
        write_shards(manifest, tmp_path, "x")
    folder = tmp_path / "frames"
    folder.mkdir()
    for path, words in (
        (
            tmp_path / "gone.mp4",
            "gone.mp4: cannot be put into a shard .No such file .*tools/check_data.py writes a list",
        ),
        (folder, "frames: shards hold video files below 8 GiB, no folders of frames; leave it out"),
    ):
        one = Manifest(
            records=(Record(path=str(path), label=0, row=0),), class_names=None, multi_label=False, source="x"
        )
        with pytest.raises(ManifestError, match=words):
            write_shards(one, tmp_path, "y")
    with pytest.raises(ManifestError, match=r"lies in a shard already; name the list that the shards were made of"):
        write_shards(read_manifest(str(index)), tmp_path, "y")
    empty = Manifest(records=(), class_names=None, multi_label=False, source="list.csv")
    with pytest.raises(ManifestError, match=r"list.csv: holds no videos to write into shards"):
        write_shards(empty, tmp_path, "y")


def test_a_video_that_changes_while_it_is_copied(manifest: Manifest, tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"1234")
    one = Manifest(records=(Record(path=str(video), label=0, row=0),), class_names=None, multi_label=False, source="x")

    def meanwhile(planned: Any) -> Any:
        video.write_bytes(b"12345678")
        return planned

    with pytest.raises(ManifestError, match=r"a.mp4: had 4 bytes and now has 8; is it still being fetched"):
        write_shards(one, tmp_path / "out", "train", progress=meanwhile)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".train.unfinished.json"]


def test_part_of_an_index(index: Path, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(part_of_index(str(index), [1, 6]))
    part = read_manifest(str(tmp_path / "train.json"), root=str(index.parent))
    whole = read_manifest(str(index)).records
    assert [record.stored for record in part.records] == [whole[1].stored, whole[6].stored]
    assert [record.row for record in part.records] == [0, 1]


# -- damage ------------------------------------------------------------------------------------------------------------


def edited(index: Path, **changes: Any) -> None:
    content = json.loads(index.read_text())
    for key, value in changes.items():
        if key == "record":
            content["records"][2] = [new if new is not None else old for new, old in zip(value, content["records"][2])]
        else:
            content[key] = value
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shards": None}, "shard 0 is None, not a file's name and size; make it anew"),
        ({"shards": [["../x.tar", 5]]}, "shard 0 is ['../x.tar', 5], not a file's name and size"),
        ({"shards": [["gone.tar", 5]]}, "gone.tar: no such file, but "),
        ({"records": [[0, "a.mp4"]]}, "record 0 does not have the 7 columns of an index; make it anew"),
        ({"records": None}, "record 0 does not have the 7 columns"),
        ({"class_names": "up"}, "class_names must be a list of names; make the index anew"),
        ({"record": [99] + [None] * 6}, "record 2 lies in shard 99 as '0000002_v_1_x.mp4', and there are "),
        ({"record": [None, "../a.mp4"] + [None] * 5}, "record 2 lies in shard 0 as '../a.mp4', and there are "),
        ({"record": [None, None, 10**9] + [None] * 4}, "record 2 lies at byte 1000000000 to 1000000000 + "),
        ({"record": [None, None, -512] + [None] * 4}, "record 2 lies at byte -512 to -512 + "),
        ({"record": [None] * 4 + [3, None, None]}, "record 2 has label 3 and times [None, None]; make the index anew"),
        ({"record": [None] * 4 + [True, None, None]}, "record 2 has label True and times"),
        ({"record": [None] * 4 + [[1], None, None]}, "record 2 has label [1] and times"),
        ({"record": [None] * 5 + [-1.0, 2.0]}, "record 2 has label 0 and times [-1.0, 2.0]"),
    ],
)
def test_damaged_indices(index: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    copy = copied(index, tmp_path)
    edited(copy, **changes)
    with pytest.raises(ManifestError) as caught:
        read_manifest(str(copy))
    assert words in str(caught.value)


def test_damaged_files(index: Path, tmp_path: Path, served: str) -> None:
    copy = copied(index, tmp_path / "copy")
    whole = copy.read_text()
    copy.write_text(whole[:-20])
    with pytest.raises(ManifestError, match=r"train.index.json:1: is not JSON .*make the file anew"):
        read_manifest(str(copy))
    copy.write_text('{"shards": []}')
    with pytest.raises(
        ManifestError, match=r"is not the index of tar shards: it must have class_names, multi_label, source"
    ):
        read_manifest(str(copy))
    copy.write_text(whole)
    shard = copy.with_name("train-000001.tar")
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(
        ManifestError, match=r"train-000001.tar: has \d+ of \d+ bytes that .* says; copy the shard again"
    ):
        read_manifest(str(copy))
    outside = tmp_path / "outside.tar"
    outside.write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to(outside)
    with pytest.raises(ManifestError, match=r"shard 1: 'train-000001.tar' is or lies behind a link that leaves"):
        read_manifest(str(copy))
    fs = fsspec.filesystem("memory")
    fs.pipe("/served/bad.index.json", whole[:-20].encode())
    with pytest.raises(ManifestError, match=r"memory://served/bad.index.json: is not JSON .*make the file anew"):
        read_manifest(f"{served}/bad.index.json")
    with pytest.raises(ManifestError, match=r"memory://served/gone.index.json: cannot be read"):
        read_manifest(f"{served}/gone.index.json")


def test_urls_that_cannot_be_read(index: Path, tmp_path: Path) -> None:
    for source in (
        "abfs-nowhere://x/train.index.json",
        "dropbox://x/train.index.json",
    ):  # unknown; known, not installed
        with pytest.raises(ConfigError, match=r"no file system for such URLs is installed .*install it, or download"):
            read_manifest(source)
    listing = tmp_path / "list.csv"
    listing.write_text("a.mp4 0\n")
    with pytest.raises(ManifestError, match=r"data.root=s3://b: is a URL, which only the index of tar shards can have"):
        read_manifest(str(listing), root="s3://b")


def test_what_goes_wrong_while_training(
    index: Path, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(index, tmp_path)
    here, there = read_manifest(str(copy)), read_manifest(f"{served}/{index.name}")
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
        return lambda away: fs.pipe("/served/train-000000.tar", data) if away else shard.write_bytes(data)

    fails(
        lambda away: fs.rm("/served/train-000000.tar") if away else shard.unlink(),
        "missing",
        "its shard cannot be read",
    )
    fails(
        put(content[:2000]), "truncated", r"its shard has 2000 bytes, and the video lies at 512 to \d+; fetch the shard"
    )
    other = content.replace(b"0000000_v_0_x.mp4", b"0000000_v_9_x.mp4")
    fails(
        put(other), "container", "does not lie at byte 512 of its shard, as the index says; index and shards belong to"
    )
    dataset = TestViews(here, CLIP, TWO_CROPS, num_clips=1)
    shard.unlink()
    broken = dataset[0]
    assert isinstance(broken, BrokenVideo) and broken.reason == "missing" and isinstance(dataset[6], VideoViews)


class Stumbling:
    """A file system whose first answers fail."""

    def __init__(self, failures: list[Exception], content: bytes) -> None:
        self.failures, self.content = failures, content

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        return self.content[start:end]


def test_a_storage_that_stumbles(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    local = read_manifest(str(index)).records[0].stored
    assert local is not None
    content = Path(local.shard).read_bytes()
    stored = StoredVideo(shard="s3://b/x.tar", member=local.member, offset=local.offset, size=local.size)

    def behaves(*failures: Exception) -> None:
        system = Stumbling(list(failures), content)
        monkeypatch.setattr(remote, "_file_system", lambda url: (system, url))

    behaves(TimeoutError("slow"), RuntimeError("busy"))
    with open_video(stored) as video:
        assert len(video.frames([0, 3])) == 2
    behaves(*[RuntimeError("busy")] * 3)
    with pytest.raises(DecodeError, match=r"its storage does not answer .RuntimeError: busy.") as caught:
        open_video(stored)
    assert caught.value.reason == "unreachable"
    behaves(PermissionError("no key"))
    with pytest.raises(DecodeError, match=r"its shard may not be read .no key.") as caught:
        open_video(stored)
    assert caught.value.reason == "permission"
    with pytest.raises(
        DecodeError, match=r"0 MiB would have to be fetched, over the limit of 0 MiB; download the shard"
    ):
        PyAVReader(stored, limits=Limits(max_bytes=100))
