"""Storage of signatures: what a directory and a web server may hold, and what is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from builda.errors import BuildaError, CorruptContent, RegistryError
from builda.oci import mediatype
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest
from builda.oci.reference import Reference
from builda.trust import attachments, lookaside
from builda.trust.lookaside import Body
from builda.trust.registriesd import Lookaside, directory
from builda.trust.signature import COSIGN_TYPE, COUNT, LIMIT, Sigstore, Simple, Unreadable
from tests.support.memory import MemoryImage, index_of, random_image

REFERENCE, DIGEST = Reference.parse("r.io/a/b:1"), Digest.of(b"m")


def files(path: Path, *blobs: bytes) -> Path:
    place = path / f"a/b@sha256={DIGEST.encoded}"
    place.mkdir(parents=True, exist_ok=True)
    for number, blob in enumerate(blobs, 1):
        (place / f"signature-{number}").write_bytes(blob)
    return place


def read(path: Path) -> list[object]:
    return list(lookaside.signatures(directory(str(path)), REFERENCE, DIGEST, no_url))


def no_url(url: str) -> AbstractContextManager[Body]:
    raise AssertionError(url)


def test_numbers_end_at_the_first_gap(tmp_path: Path) -> None:
    place = files(tmp_path, b"\xa31", b"\xa32", b"\xa33")
    (place / "signature-2").unlink()
    assert read(tmp_path) == [Simple(b"\xa31")]
    assert read(tmp_path / "none") == []


def test_what_is_no_signature_is_one_that_does_not_count(tmp_path: Path) -> None:
    place = files(tmp_path, b"\xa31", b"", b"text", bytes(LIMIT + 1))
    (place / "signature-5").symlink_to("/dev/zero")
    (place / "signature-6").write_bytes(b"\xa36")
    found = read(tmp_path)
    assert [found[0], found[5]] == [Simple(b"\xa31"), Simple(b"\xa36")]
    assert all(isinstance(one, Unreadable) for one in found[1:5])


def test_a_directory_in_the_place_of_a_signature_is_told(tmp_path: Path) -> None:
    (files(tmp_path) / "signature-1").mkdir()
    with pytest.raises(BuildaError, match=r"signature cannot be read, is a directory: .*signature-1"):
        read(tmp_path)


def test_there_is_an_end_to_signatures(tmp_path: Path) -> None:
    files(tmp_path, *(b"\xa3" for _ in range(COUNT + 10)))
    assert len(read(tmp_path)) == COUNT
    with pytest.raises(BuildaError, match=f"has {COUNT} signatures already"):
        lookaside.add(directory(str(tmp_path)), REFERENCE, DIGEST, b"\xa3")


def test_a_web_server_without_an_end(tmp_path: Path) -> None:
    class Endless:
        read_bytes = 0

        def read(self, size: int = -1, /) -> bytes:
            self.read_bytes += size
            return b"\xa3" * size

    body = Endless()

    @contextmanager
    def fetch(url: str) -> Iterator[Body]:
        if not url.endswith("/signature-1"):
            raise RegistryError("not there", status=404)
        yield body

    place = Lookaside("https://h/x", "https", "/x")
    found = list(lookaside.signatures(place, REFERENCE, DIGEST, fetch))
    assert [type(one) for one in found] == [Unreadable]
    assert body.read_bytes == LIMIT + 1


@pytest.mark.parametrize("status", [403, 500, None])
def test_what_a_web_server_does_not_say_is_no_end(status: int | None) -> None:
    def fetch(url: str) -> AbstractContextManager[Body]:
        raise RegistryError("cannot say", status=status)

    with pytest.raises(RegistryError, match="cannot say"):
        list(lookaside.signatures(Lookaside("https://h/x", "https", "/x"), REFERENCE, DIGEST, fetch))


def test_many_write_at_once(tmp_path: Path) -> None:
    blobs = [b"\xa3" + bytes([number]) for number in range(40)]
    place = directory(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda blob: lookaside.add(place, REFERENCE, DIGEST, blob), blobs))
    assert len(set(paths)) == 40
    assert {one.data for one in read(tmp_path) if isinstance(one, Simple)} == set(blobs)
    assert not [name for name in os.listdir(Path(paths[0]).parent) if name.startswith(".")]
    assert os.stat(paths[0]).st_mode & 0o777 == 0o644


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildaError, match=r"signature cannot be written, .*: .*/file/"):
        lookaside.add(directory(str(tmp_path / "file/x")), REFERENCE, DIGEST, b"\xa3")


# cosign's tags


def signed(*payloads: bytes) -> MemoryImage:
    image = MemoryImage()
    layers = tuple(image.add(content, COSIGN_TYPE) for content in payloads)
    config = image.add(b"{}", mediatype.CONFIG)
    data = Manifest(config=config, layers=layers).dump()
    image.top = image.add(data, mediatype.MANIFEST)
    return image


def test_layers_that_cannot_be_read_do_not_hide_others() -> None:
    image = signed(b"a", b"b", b"c")
    image.blobs[Digest.of(b"b")] = b"x"
    found = list(attachments.signatures(image))
    assert [type(one) for one in found] == [Sigstore, Unreadable, Sigstore]
    large = bytes(LIMIT + 1)
    assert [type(one) for one in attachments.signatures(signed(large, b"c"))] == [Unreadable, Sigstore]


def test_other_layers_are_no_signatures() -> None:
    assert list(attachments.signatures(random_image())) == []
    with pytest.raises(CorruptContent, match="has a list of images"):
        list(attachments.signatures(index_of(random_image())))
    assert list(attachments.signatures(MemoryImage())) == []


def test_signatures_are_added_once() -> None:
    place = MemoryImage()
    for content in (b"a", b"b", b"a"):
        attachments.add(place, place, Sigstore(COSIGN_TYPE, content, {"k": "v"}))
    found = list(attachments.signatures(place))
    assert [one.payload for one in found if isinstance(one, Sigstore)] == [b"a", b"b"]
    assert place.config.diff_ids == tuple(layer.digest for layer in place.image.layers)


def test_the_tag_is_cosigns() -> None:
    assert attachments.tag_of(DIGEST) == f"sha256-{DIGEST.encoded}.sig"
