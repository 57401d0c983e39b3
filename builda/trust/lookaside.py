"""Signatures beside a registry: files in a directory, or behind a URL, in the order of their numbers.

A directory is written with a new number for each signature, so that nothing that is there is lost.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from builda.errors import BuildaError, InvalidValue, RegistryError
from builda.inputfile import read_input
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.trust.registriesd import Lookaside
from builda.trust.signature import COUNT, LIMIT, Signature, Unreadable, parse


class Body(Protocol):
    """The body of an HTTP answer."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end."""
        ...


Fetch = Callable[[str], AbstractContextManager[Body]]
"""Opens a URL; RegistryError with the status if there is nothing."""


def signatures(place: Lookaside, reference: Reference, digest: Digest, fetch: Fetch) -> Iterator[Signature]:
    """The signatures of the image in the order of their numbers, up to the first one that is missing."""
    for number in range(1, COUNT + 1):
        one = place.of(reference, digest, number)
        try:
            blob = _file(one.path) if one.scheme == "file" else _fetched(one.url, fetch)
        except InvalidValue as error:
            yield Unreadable(str(error))
            continue
        if blob is None:
            return
        yield parse(blob)


def add(place: Lookaside, reference: Reference, digest: Digest, blob: bytes) -> str:
    """The image has this signature, too; the path of its file."""
    for number in range(1, COUNT + 1):
        path = place.of(reference, digest, number).path
        if not os.path.lexists(path) and put(path, blob):
            return path
    raise BuildaError(f"image has {COUNT} signatures already: {reference.name}@{digest}")


def put(path: str, blob: bytes) -> bool:
    """Whether the file is there now, whole, because of this call; False if the name is taken."""
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".signature-") as file:
            file.write(blob)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            os.link(file.name, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise BuildaError(f"signature cannot be written, {(error.strerror or str(error)).lower()}: {path}") from error
    return True


def _file(path: str) -> bytes | None:
    try:
        return read_input(path, "signature", LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BuildaError(f"signature cannot be read, {(error.strerror or str(error)).lower()}: {path}") from error


def _fetched(url: str, fetch: Fetch) -> bytes | None:
    found = bytearray()
    try:
        with fetch(url) as body:
            while len(found) <= LIMIT and (piece := body.read(min(1 << 20, LIMIT + 1 - len(found)))):
                found += piece
    except RegistryError as error:
        if error.status == 404:
            return None
        raise
    if len(found) > LIMIT:
        raise InvalidValue(f"signature has more bytes than the limit, {LIMIT}: {url}")
    return bytes(found)
