"""builda.lock as a value: one form, and a place for everything that is wrong with it."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest

from builda.errors import BuildaError, InvalidValue
from builda.lockfile import Lock, LockedImage, dump, key_of, parse, read, save
from builda.oci.descriptor import Platform

DIGEST = f"sha256:{'a' * 64}"
LOCK = Lock(
    {"b": LockedImage(DIGEST), "a": LockedImage(DIGEST, "docker.io/library/a:latest", ("linux/amd64",))},
    {"https://example.org/x": DIGEST},
    {"https://example.org/x.git#main": "b" * 40},
)


def test_a_lock_is_written_in_one_form_only() -> None:
    data = dump(LOCK)
    assert parse(data, "f") == LOCK
    assert dump(parse(data, "f")) == data
    assert list(json.loads(data)["images"]) == ["a", "b"]
    assert data.endswith(b"\n")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"version": 2}, "lock file has version 2, this builda reads version 1: f"),
        ({"version": True}, "version true"),
        ({"version": None}, "version null"),
        ({"more": {}}, "unknown key more: f"),
        ({"images": []}, "needs an object here: f: images"),
        ({"images": {"a": 1}}, "f: images: a"),
        ({"images": {"a": {}}}, "digest is not text in f: images: a"),
        ({"images": {"a": {"digest": "sha256:../../x"}}}, "f: images: a"),
        ({"images": {"a": {"digest": DIGEST, "x": 1}}}, "unknown key x: f: images: a"),
        ({"images": {"a": {"digest": DIGEST, "name": 1}}}, "name is not text in f: images: a"),
        ({"images": {"a": {"digest": DIGEST, "name": "A!"}}}, "f: images: a"),
        ({"images": {"a": {"digest": DIGEST, "name": "debian"}}}, "name is not a full one"),
        ({"images": {"a": {"digest": DIGEST, "name": f"r.example/a@{DIGEST}"}}}, "name is not a full one"),
        (
            {"images": {"r.example/a:1": {"digest": DIGEST, "name": "evil.example/a:1"}}},
            "name belongs to another image",
        ),
        ({"images": {"a:1": {"digest": DIGEST, "name": "r.example/a:2"}}}, "name belongs to another image"),
        ({"images": {"a": {"digest": DIGEST, "platforms": "linux"}}}, "platforms are not a list of text"),
        ({"images": {"a": {"digest": DIGEST, "platforms": ["a/b/c/d"]}}}, "f: images: a"),
        ({"urls": {"u": "md5:1"}}, "f: urls: u"),
        ({"repositories": {"r": "--upload-pack=x"}}, "f: repositories: r"),
        ({"repositories": {"r": "abc"}}, "commit is not 40 or 64 hexadecimal digits"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(BuildaError) as caught:
        parse(json.dumps({"version": 1, **change}).encode(), "f")
    assert place in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"version": NaN}', b"null", b"[]"])
def test_what_is_no_lock_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="lock file"):
        parse(data, "f")


def test_a_key_that_a_merge_left_twice_is_refused() -> None:
    with pytest.raises(InvalidValue, match="the key a twice: f"):
        parse(f'{{"version": 1, "urls": {{"a": "{DIGEST}", "b": "{DIGEST}", "a": "{DIGEST}"}}}}'.encode(), "f")


def test_no_password_gets_into_the_file() -> None:
    assert "hush" not in key_of("https://user:hush@example.org/x")
    assert "hush" not in key_of("https://example.org/x?token=hush")


def test_saving_adds_to_what_is_there_and_keeps_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (tmp_path / "link").symlink_to("real")
    assert save(str(tmp_path / "link"), LOCK) == Lock()
    assert (tmp_path / "link").is_symlink()
    other = Lock({"b": LockedImage(f"sha256:{'c' * 64}")})
    assert save(str(real), other) == LOCK
    now = read(str(real))
    assert now.images["b"] == other.images["b"]
    assert now.urls == LOCK.urls
    assert list(other.changes(LOCK)) == [("b", DIGEST, f"sha256:{'c' * 64}")]
    assert stat.S_IMODE(real.stat().st_mode) & 0o111 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def _save(place: str, number: int) -> None:
    save(place, Lock({f"image{number}": LockedImage(DIGEST)}))


def test_processes_that_save_at_once_lose_nothing(tmp_path: Path) -> None:
    place = str(tmp_path / "builda.lock")
    children = [multiprocessing.get_context("fork").Process(target=_save, args=(place, n)) for n in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert len(read(place).images) == 8


@pytest.mark.parametrize(
    ("there", "wanted", "has"),
    [
        ((), "linux/s390x", True),
        (("linux/amd64",), "linux/amd64", True),
        (("linux/amd64",), "linux/arm64", False),
        (("linux/arm64/v8",), "linux/arm64", True),
        (("linux/arm/v6",), "linux/arm/v7", True),
        (("linux/arm/v7",), "linux/arm/v6", False),
    ],
)
def test_which_platforms_an_index_has(there: tuple[str, ...], wanted: str, has: bool) -> None:
    assert LockedImage(DIGEST, None, there).has(Platform.parse(wanted)) is has
