"""SHA-256 digests against published values and across key orders."""

from __future__ import annotations

from pathlib import Path

from hiera_video.utils.hashing import file_sha256, json_sha256


def test_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert file_sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_digest_of_a_value_does_not_depend_on_the_order_of_keys() -> None:
    assert json_sha256({"a": 1, "b": [2, None]}) == json_sha256({"b": [2, None], "a": 1})
    assert json_sha256({"a": 1}) != json_sha256({"a": 2})
    # recorded in checkpoints and shards: the digest of `{"a": 1}` must never change
    assert json_sha256({"a": 1}) == (
        "f9d86028c6e0d64e225186f96acb69338b2c59764df79162107f5c4bb34d1310"
    )
