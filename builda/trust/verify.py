"""Whether an image has the signatures that a policy wants: keys and signatures are read, gpg and cryptography asked.

One good signature is enough for one requirement, and others beside it do not matter. Without one, the error says what
is wrong with each.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from builda.errors import CorruptContent, PolicyRejected
from builda.inputfile import read_input
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.trust import payload
from builda.trust.identity import matches
from builda.trust.policy import Keys, Signed, SignedBy, SigstoreSigned, Wanted
from builda.trust.signature import Signature, Sigstore, Simple, Unreadable
from builda.values import NamedTuple

_SHOWN = 5
"""Reasons that an error names."""


class Shelf(Protocol):
    """Reads the signatures of an image."""

    def simple(self, digest: Digest) -> Iterator[Signature]:
        """The files beside the manifest with this digest, in their order."""
        ...

    def sigstore(self, digest: Digest) -> Iterator[Signature]:
        """cosign's signatures of the manifest with this digest."""
        ...

    def looked(self, rule: Signed) -> str:
        """The place of signatures of this kind, in words for an error."""
        ...


class Subject(NamedTuple):
    """The signed object: the bytes of a manifest or index, and its name if the transport has names."""

    name: str
    identity: Reference | None
    manifest: bytes


class Accepted(NamedTuple):
    """A requirement that is fulfilled, by whose key, and the image name that the signature has."""

    type: str
    key: str
    identity: str


def accepted(wanted: Wanted, subject: Subject, shelf: Shelf) -> tuple[Accepted, ...]:
    """For each requirement the signature that fulfils it; PolicyRejected if one has none."""
    return tuple(_fulfilled(rule, wanted, subject, shelf) for rule in wanted.requirements)


def _fulfilled(rule: Signed, wanted: Wanted, subject: Subject, shelf: Shelf) -> Accepted:
    reasons: list[str] = []
    digest = Digest.of(subject.manifest)
    with ExitStack() as stack:
        try:
            check = _checker(rule, subject, stack)
        except (CorruptContent, OSError) as error:
            raise PolicyRejected(
                f"key of {wanted.file} cannot be used, {_said(error)}: {subject.name}",
                hint=f"the key is named by {wanted.place} of that file",
            ) from error
        for signature in _candidates(rule, shelf, digest):
            try:
                return check(signature)
            except CorruptContent as error:
                reasons.append(str(error))
    raise _rejected(rule, wanted, subject, shelf, reasons)


def _rejected(rule: Signed, wanted: Wanted, subject: Subject, shelf: Shelf, reasons: Sequence[str]) -> PolicyRejected:
    where = f"the rule is {wanted.place} of that file; signatures are looked for {shelf.looked(rule)}"
    if not reasons:
        return PolicyRejected(
            f"image has no signature, which {wanted.file} wants ({rule.type}): {subject.name}", hint=where
        )
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    said = "; ".join(dict.fromkeys(reasons[:_SHOWN])) + more
    what = "signature does not count" if len(reasons) == 1 else f"none of {len(reasons)} signatures counts"
    return PolicyRejected(f"{what} for {wanted.file} ({said}): {subject.name}", hint=where)


def _candidates(rule: Signed, shelf: Shelf, digest: Digest) -> Iterable[Signature]:
    """Signatures of the kind that the rule is about; those of the other kind may lie in the same place."""
    other = Sigstore if isinstance(rule, SignedBy) else Simple
    found = shelf.simple(digest) if isinstance(rule, SignedBy) else shelf.sigstore(digest)
    return (one for one in found if not isinstance(one, other))


class _Check(Protocol):
    def __call__(self, signature: Signature) -> Accepted: ...


def _checker(rule: Signed, subject: Subject, stack: ExitStack) -> _Check:
    """A function that says why a signature does not count, by CorruptContent, or how it does."""
    if isinstance(rule, SigstoreSigned):
        return _sigstore(rule, subject)
    from builda.trust import gpg

    ring = stack.enter_context(gpg.verifying([*data_of(rule.keys)]))

    def check(signature: Signature) -> Accepted:
        if not isinstance(signature, Simple):
            raise _unreadable(signature)
        verified = ring.verify(signature.data)
        claim = _judged(payload.read(verified.content, payload.SIMPLE), rule, subject)
        return Accepted(rule.type, verified.fingerprint, claim.identity)

    return check


def _sigstore(rule: SigstoreSigned, subject: Subject) -> _Check:
    from builda.trust import sigstore

    trusted = sigstore.Trusted.of(rule, data_of)

    def check(signature: Signature) -> Accepted:
        if not isinstance(signature, Sigstore):
            raise _unreadable(signature)
        signer = trusted.verify(signature)
        claim = _judged(payload.read(signature.payload, payload.SIGSTORE), rule, subject)
        return Accepted(rule.type, signer, claim.identity)

    return check


def _judged(claim: payload.Claim, rule: Signed, subject: Subject) -> payload.Claim:
    """The claim of a verified signature, if it is about this image; CorruptContent if not."""
    if hashlib.new(claim.digest.algorithm, subject.manifest).hexdigest() != claim.digest.encoded:
        raise CorruptContent(f"it is about another image, {claim.digest}")
    if not matches(rule.identity, subject.identity, claim.identity):
        raise CorruptContent(f"it is for another name, {claim.identity!r}")
    return claim


def data_of(keys: Keys) -> tuple[bytes, ...]:
    """The content of key files, or the keys of the policy itself; OSError for a file that cannot be read."""
    return (*(read_input(Path(path), "key") for path in keys.paths), *keys.data)


def _unreadable(signature: Signature) -> CorruptContent:
    return CorruptContent(f"it {signature.reason}" if isinstance(signature, Unreadable) else "it is of another kind")


def _said(error: CorruptContent | OSError) -> str:
    if isinstance(error, OSError):
        return f"{(error.strerror or str(error)).lower()} ({os.fsdecode(error.filename or '')})"
    return str(error)
