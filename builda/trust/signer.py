"""Signing: SigningSink signs each manifest before it is published. What cannot be signed is not published.

A signature that a key has made before, for the same manifest and name, is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

from builda import __version__
from builda.attestations.attached import entries_about, statements_in
from builda.attestations.statement import is_about
from builda.errors import AlreadyExists, CorruptContent, InvalidReference, InvalidValue, NotFound, of_system
from builda.inputfile import read_input
from builda.oci.digest import Digest
from builda.oci.manifest import Index, Manifest, parse
from builda.oci.reference import Reference, parse_short
from builda.transfer.copyimage import child_of, read_blob
from builda.transfer.locate import Location
from builda.trust import attachments, envelope, lookaside, payload
from builda.trust.envelope import Envelope
from builda.trust.payload import Claim
from builda.trust.signature import COUNT, Signature, Sigstore, Simple, Unreadable, dump

if TYPE_CHECKING:
    from builda.oci.descriptor import Descriptor
    from builda.transfer.copyimage import ImageSink, ImageSource
    from builda.trust import gpg, sigstore
    from builda.trust.registriesd import Lookaside
    from builda.trust.verify import Shelf

A = TypeVar("A")
"""How a registry is reached."""

_PASSPHRASE_LIMIT = 4096
_STATEMENT_LIMIT = 64 << 20
"""Bytes that a statement may have, as `image sbom --attached` reads them."""


class Signer(Protocol):
    """A key that signs."""

    def sign(self, claim: Claim) -> Simple | Sigstore:
        """A signature that makes the claim."""
        ...

    def claim_of(self, signature: Signature) -> Claim | None:
        """The claim of a signature by this key; None for a signature by another key."""
        ...

    def attest(self, statement: bytes) -> Envelope | None:
        """The statement, signed; None for a kind of key by which statements are not signed."""
        ...

    def has_attested(self, envelope: Envelope) -> bool:
        """Whether this very key signed the statement."""
        ...


class Keeper(Protocol):
    """A place that signatures are written to."""

    def keep(self, claim: Claim, signer: Signer) -> None:
        """Store a signature by the signer of the claim, before the manifest itself is stored."""
        ...

    def put(self, digest: Digest, signature: Simple | Sigstore) -> None:
        """Store this signature once, before the manifest itself is stored."""
        ...

    def attest(self, list_: Index, signers: Sequence[Signer]) -> None:
        """Store an attestation by each signer of the statements about images of the list, which are stored already."""
        ...

    def published(self, top: Digest) -> None:
        """The image with this manifest is there now."""
        ...


class GpgSigner:
    """A key of the caller's GPG keyring."""

    def __init__(self, key: gpg.Signing) -> None:
        self._key = key

    def sign(self, claim: Claim) -> Simple:
        """A signature of GPG that makes the claim."""
        return Simple(self._key.sign(_written(claim, payload.SIMPLE)))

    def claim_of(self, signature: Signature) -> Claim | None:
        """The claim of a signature by this key; None for a signature by another key."""
        content = self._key.has_signed(signature.data) if isinstance(signature, Simple) else None
        return None if content is None else _read(content, payload.SIMPLE)

    def attest(self, statement: bytes) -> Envelope | None:
        """None: containers' signatures of GPG are about images only."""
        return None

    def has_attested(self, envelope: Envelope) -> bool:
        """False: keys of this kind sign no statements."""
        return False


class SigstoreSigner:
    """A private key of cosign, or in PEM."""

    def __init__(self, key: sigstore.Signing) -> None:
        self._key = key

    def sign(self, claim: Claim) -> Sigstore:
        """A signature as cosign makes it; the claim has the tag, which cosign leaves out."""
        return self._key.sign(_written(claim, payload.SIGSTORE))

    def claim_of(self, signature: Signature) -> Claim | None:
        """The claim of a signature by this key; None for a signature by another key."""
        if not isinstance(signature, Sigstore) or not self._key.has_signed(signature):
            return None
        return _read(signature.payload, payload.SIGSTORE)

    def attest(self, statement: bytes) -> Envelope | None:
        """The statement in an envelope, as cosign attests."""
        return self._key.attest(statement)

    def has_attested(self, envelope: Envelope) -> bool:
        """Whether this key signed the statement."""
        return self._key.has_attested(envelope)


class SigningSink:
    """A sink that signs the image that it receives."""

    def __init__(self, sink: ImageSink, keeper: Keeper, signers: Sequence[Signer], identity: str) -> None:
        self._sink = sink
        self._keeper = keeper
        self._signers = signers
        self._identity = identity

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the content is there already."""
        return self._sink.has_blob(descriptor)

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Put the content there."""
        self._sink.put_blob(descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Put a manifest after its signatures. The top one, and those of a list, are signed for the image's name."""
        sign(self._keeper, self._signers, Claim(Digest.of(data), self._identity))
        document = parse(data, descriptor.media_type)
        if isinstance(document, Index):
            self._keeper.attest(document, self._signers)
        self._sink.put_manifest(descriptor, data, top=top)
        if top:
            self._keeper.published(Digest.of(data))


class SignatureCarrier(Generic[A]):
    """The signatures at `shelf`, which go where the image is copied to; `keeper` opens such a place, when needed."""

    def __init__(self, shelf: Shelf, keeper: Callable[[Reference | Location, A], Keeper]) -> None:
        self._shelf = shelf
        self._keeper = keeper

    def over(self, sink: ImageSink, place: Reference | Location, access: A) -> CarryingSink | None:
        """A sink that gives each manifest its signatures, at `place`; None for a place that holds none."""
        if isinstance(place, Location) and place.transport != "dir":
            return None
        return CarryingSink(sink, lambda: self._keeper(place, access), self._shelf)

    def has(self, digest: Digest) -> bool:
        """Whether the manifest with this digest has signatures."""
        return any(True for _ in found_at(self._shelf, digest))


class CarryingSink:
    """A sink that gives each manifest the signatures that it has at `shelf`, before it is published."""

    def __init__(self, sink: ImageSink, keeper: Callable[[], Keeper], shelf: Shelf) -> None:
        self._sink = sink
        self._open = keeper
        self._keeper: Keeper | None = None
        self._shelf = shelf

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the content is there already."""
        return self._sink.has_blob(descriptor)

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Put the content there."""
        self._sink.put_blob(descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Put a manifest after its signatures."""
        digest = Digest.of(data)
        for signature in found_at(self._shelf, digest):
            self._keeper = self._keeper or self._open()
            self._keeper.put(digest, signature)
        self._sink.put_manifest(descriptor, data, top=top)
        if top and self._keeper is not None:
            self._keeper.published(digest)


def found_at(shelf: Shelf, digest: Digest) -> Iterator[Simple | Sigstore]:
    """All signatures of a manifest that can be read, each once. They are not verified."""
    seen: list[Simple | Sigstore] = []
    for signature in (*shelf.simple(digest), *shelf.sigstore(digest)):
        if isinstance(signature, Simple | Sigstore) and signature not in seen:
            seen.append(signature)
            yield signature


def sign(keeper: Keeper, signers: Sequence[Signer], claim: Claim) -> None:
    """The manifest has a signature by each signer."""
    for signer in signers:
        keeper.keep(claim, signer)


class RegistryKeeper:
    """Storage beside a registry for GPG's signatures, and cosign's tags in it. `sink` and `source` open a tag."""

    def __init__(
        self,
        reference: Reference,
        storage: Callable[[], Lookaside],
        source: Callable[[Reference], ImageSource],
        sink: Callable[[Reference], ImageSink],
    ) -> None:
        self._reference = reference
        self._storage = storage
        self._source = source
        self._sink = sink

    def keep(self, claim: Claim, signer: Signer) -> None:
        """Add the signature to those that exist."""
        if isinstance(signer, GpgSigner):
            self._keep_file(claim, signer)
        else:
            self._keep_attachment(claim, signer)

    def put(self, digest: Digest, signature: Simple | Sigstore) -> None:
        """Add the signature to those that exist."""
        if isinstance(signature, Sigstore):
            tagged = self._reference._replace(tag=attachments.tag_of(digest), digest=None)
            attachments.add(self._source(tagged), self._sink(tagged), signature)
            return
        storage = self._storage()
        if signature not in lookaside.signatures(storage, self._reference, digest, _no_url):
            lookaside.add(storage, self._reference, digest, dump(signature))

    def attest(self, list_: Index, signers: Sequence[Signer]) -> None:
        """Add the attestations of each image to those that exist."""
        for entry in list_.manifests:
            for about in entries_about(list_, entry.digest):
                source = self._source(self._reference._replace(tag=None, digest=about.digest))
                manifest = parse(child_of(source, about), about.media_type)
                for kind, blob in statements_in(manifest) if isinstance(manifest, Manifest) else ():
                    self._keep_statement(entry.digest, kind, read_blob(source, blob, _STATEMENT_LIMIT), signers)

    def published(self, top: Digest) -> None:
        """The signatures were there before."""

    def _keep_file(self, claim: Claim, signer: Signer) -> None:
        storage = self._storage()
        there = lookaside.signatures(storage, self._reference, claim.digest, _no_url)
        if not any(signer.claim_of(one) == claim for one in there):
            lookaside.add(storage, self._reference, claim.digest, dump(signer.sign(claim)))

    def _keep_attachment(self, claim: Claim, signer: Signer) -> None:
        tagged = self._reference._replace(tag=attachments.tag_of(claim.digest), digest=None)
        if any(signer.claim_of(one) == claim for one in attachments.signatures(self._source(tagged))):
            return
        made = signer.sign(claim)
        assert isinstance(made, Sigstore), "GPG's signatures are files"
        attachments.add(self._source(tagged), self._sink(tagged), made)

    def _keep_statement(self, image: Digest, kind: str, statement: bytes, signers: Sequence[Signer]) -> None:
        if not is_about(statement, image):
            raise CorruptContent(f"statement is not about the image that the list says, {image}: {self._reference}")
        tagged = self._reference._replace(tag=attachments.tag_of(image, "att"), digest=None)
        there = [one for one in map(_envelope, attachments.envelopes(self._source(tagged))) if one is not None]
        for signer in signers:
            if any(one.statement == statement and signer.has_attested(one) for one in there):
                continue
            made = signer.attest(statement)
            if made is not None:
                attachments.add(self._source(tagged), self._sink(tagged), made.attached(kind))


class DirectoryKeeper:
    """The files of a `dir:`. They are written after the image, as that removes those of the image before."""

    def __init__(self, path: str, *, is_there: bool = False) -> None:
        self._path = Path(path)
        self._made: list[tuple[Digest, bytes]] = []
        self._is_there = is_there

    def keep(self, claim: Claim, signer: Signer) -> None:
        """Make the signature."""
        from builda.trust.shelves import DirectoryShelf

        there = DirectoryShelf(str(self._path)).simple(claim.digest) if self._is_there else iter(())
        if not any(signer.claim_of(one) == claim for one in there):
            self._made.append((claim.digest, dump(signer.sign(claim))))

    def put(self, digest: Digest, signature: Simple | Sigstore) -> None:
        """Keep the signature for later."""
        self._made.append((digest, dump(signature)))

    def attest(self, list_: Index, signers: Sequence[Signer]) -> None:
        """Nothing: a directory has no place for attestations but the list itself."""

    def published(self, top: Digest) -> None:
        """The files of the signatures are there, that of the top manifest under the short name."""
        for digest, blob in self._made:
            prefix = "signature-" if digest == top else f"{digest.encoded}.signature-"
            if not any(lookaside.put(str(self._path / f"{prefix}{number}"), blob) for number in range(1, COUNT + 1)):
                raise AlreadyExists(f"image has {COUNT} signatures already: {self._path}")


def signers(
    *, fingerprint: str | None, key: str | None, passphrase_file: str | None, environ: Mapping[str, str]
) -> tuple[Signer, ...]:
    """The keys that --sign-by and --sign-by-sigstore-private-key name, each of which has been tried.

    Without a passphrase file cosign's variable COSIGN_PASSWORD counts for its keys, and gpg's agent for GPG's.
    """
    if fingerprint is not None and key is not None and passphrase_file is not None:
        raise InvalidValue("--sign-passphrase-file is for one key, and two are given", hint="sign once for each key")
    passphrase = None if passphrase_file is None else _passphrase(passphrase_file)
    found: list[Signer] = []
    if fingerprint is not None:
        from builda.trust import gpg

        own = gpg.Signing(fingerprint, passphrase, environ)
        own.check()  # a wrong passphrase shows before anything is copied
        found.append(GpgSigner(own))
    if key is not None:
        from builda.trust import sigstore

        word = environ.get("COSIGN_PASSWORD")
        secret = passphrase if passphrase is not None or word is None else word.encode()
        found.append(SigstoreSigner(sigstore.Signing.of(_file(key, "private key"), secret, key)))
    return tuple(found)


def identity_of(said: str | None, reference: Reference | None) -> str:
    """The name that signatures have: as the user said, else that of the place in a registry."""
    if said is not None:
        short = parse_short(said)
        if short.registry is None or (short.tag is None and short.digest is None):
            raise InvalidReference(f"--sign-identity must be a full name, with its registry and its tag: {said}")
        return str(Reference.parse(said))
    if reference is None:
        raise InvalidValue("signatures need a name", hint="give it by --sign-identity REGISTRY/NAME:TAG")
    return f"{reference.name}:{reference.tag}" if reference.tag else f"{reference.name}@{reference.digest}"


def _written(claim: Claim, kind: str) -> bytes:
    return payload.written(claim, kind, creator=f"builda {__version__}", timestamp=int(time.time()))


def _read(content: bytes, kind: str) -> Claim | None:
    try:
        return payload.read(content, kind)
    except CorruptContent:
        return None


def _envelope(found: Sigstore | Unreadable) -> Envelope | None:
    """The attestation that is attached; None for one that cannot be read."""
    if isinstance(found, Unreadable):
        return None
    try:
        return envelope.read(found.payload)
    except CorruptContent:
        return None


def _no_url(url: str) -> NoReturn:
    raise AssertionError(f"signatures are written to directories: {url}")


def _passphrase(path: str) -> bytes:
    """The first line of the file."""
    return _file(path, "passphrase", _PASSPHRASE_LIMIT).split(b"\n")[0].rstrip(b"\r")


def _file(path: str, what: str, limit: int = 1 << 20) -> bytes:
    try:
        return read_input(path, what, limit)
    except FileNotFoundError as error:
        raise NotFound(f"no such file of a {what}: {path}") from error
    except OSError as error:
        raise of_system(error) from error
