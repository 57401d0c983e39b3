"""Reads the signatures of an image, for each transport: beside a registry, in it, in a directory, or nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from builda.errors import CorruptContent, NotFound
from builda.oci.reference import Reference
from builda.transfer.blobfile import read_small
from builda.transfer.locate import Location
from builda.trust import attachments, lookaside
from builda.trust.policy import Signed, SignedBy
from builda.trust.signature import COUNT, LIMIT, Signature, Unreadable, parse

if TYPE_CHECKING:
    from builda.oci.digest import Digest
    from builda.transfer.copyimage import ImageSource
    from builda.trust.registriesd import Signatures


class RegistryShelf:
    """The storage that registries.d names, and cosign's tags if registries.d wants them read.

    `places` are the image in its mirrors and in its registry. `opened` gives the image of a tag.
    """

    def __init__(
        self,
        reference: Reference,
        places: tuple[Reference, ...],
        conf: Signatures,
        fetch: lookaside.Fetch,
        opened: Callable[[Reference], ImageSource],
        *,
        attached: bool | None = None,
    ) -> None:
        self._reference = reference
        self._places = tuple(dict.fromkeys(places))
        self._conf = conf
        self._fetch = fetch
        self._opened = opened
        self._attached = conf.has_attachments(reference) if attached is None else attached

    def simple(self, digest: Digest) -> Iterator[Signature]:
        """The files of the storage."""
        for place in self._places:
            yield from lookaside.signatures(self._conf.to_read(place), place, digest, self._fetch)

    def sigstore(self, digest: Digest) -> Iterator[Signature]:
        """The layers under the tag that cosign gives to the signatures of this digest."""
        if self._attached:
            tagged = self._reference._replace(tag=attachments.tag_of(digest), digest=None)
            yield from attachments.signatures(self._opened(tagged))

    def looked(self, rule: Signed) -> str:
        """The place of signatures of this kind, in words."""
        if isinstance(rule, SignedBy):
            return "in " + " and ".join(dict.fromkeys(self._conf.to_read(place).url for place in self._places))
        if self._attached:
            return f"in {self._reference.name} under the tag sha256-….sig"
        return "nowhere, as registries.d does not say use-sigstore-attachments: true"


class DirectoryShelf:
    """The files of a `dir:`, of both kinds."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def simple(self, digest: Digest) -> Iterator[Signature]:
        """The files of the image in the directory, and those of the manifest with this digest in a list."""
        for name in self._names(digest)[:COUNT]:
            try:
                yield parse(read_small(self._path / name, LIMIT))
            except (CorruptContent, NotFound) as error:
                yield Unreadable(str(error))

    sigstore = simple

    def looked(self, rule: Signed) -> str:
        """The place of signatures of any kind, in words."""
        return f"in {self._path}/signature-1 and so on"

    def _names(self, digest: Digest) -> list[str]:
        pattern = re.compile(rf"(?:{digest.encoded}\.)?signature-([1-9][0-9]{{0,3}})")
        found = ((pattern.fullmatch(name), name) for name in os.listdir(self._path))
        return [name for _, name in sorted((int(match[1]), name) for match, name in found if match)]


class NoShelf:
    """A transport that has no place for signatures."""

    def __init__(self, transport: str) -> None:
        self._transport = transport

    def simple(self, digest: Digest) -> Iterator[Signature]:
        """None."""
        yield from ()

    sigstore = simple

    def looked(self, rule: Signed) -> str:
        """Why none are looked for."""
        return f"nowhere, as {self._transport}: holds no signatures"


def of_file(location: Location) -> DirectoryShelf | NoShelf:
    """The shelf of an image in a file or directory."""
    return DirectoryShelf(location.where) if location.transport == "dir" else NoShelf(location.transport)
