"""Signatures of GPG: which count, and why others do not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from builda.errors import BuildaError, CorruptContent, InvalidValue, NotFound, Unsupported
from builda.trust.gpg import LIMIT, Signing, verifying
from tests.support import needs
from tests.support.signing import Gpg, gpg

pytestmark = needs.program("gpg")
PAST = "20200101T000000!"


@pytest.fixture(scope="module")
def keys() -> Iterator[Gpg]:
    with gpg() as made:
        for name in ("good", "other", "revoked"):
            made.make(name)
        made.make("expired", "--faked-system-time", PAST, life="1d")
        made.make("old", "--faked-system-time", PAST)
        made.make("locked", passphrase="a phrase")
        yield made


def reason(keys: Gpg, signature: bytes, *names: str) -> str:
    with verifying([keys.public(*(names or ("good",)))]) as ring, pytest.raises(CorruptContent) as raised:
        ring.verify(signature)
    return str(raised.value)


def test_a_signature_by_a_key_of_the_ring(keys: Gpg) -> None:
    armored = keys.run("--armor", "--export", keys.fingerprints["good"])
    for ring_keys in ([keys.public("good")], [keys.public("other", "good")], [keys.public("other"), armored]):
        with verifying(ring_keys) as ring:
            verified = ring.verify(keys.sign(b"hello", "good"))
            assert keys.fingerprints["good"] in ring.fingerprints
        assert verified == (b"hello", keys.fingerprints["good"])


def test_a_subkey_counts_as_its_primary_key(keys: Gpg) -> None:
    primary = keys.make("subbed")
    keys.run("--pinentry-mode", "loopback", "--passphrase", "", "--quick-add-key", primary, "ed25519", "sign", "never")
    with verifying([keys.public("subbed")]) as ring:
        assert ring.verify(keys.sign(b"x", "subbed")) == (b"x", primary)


def test_keys_that_do_not_count(keys: Gpg) -> None:
    assert "is not one of those that count" in reason(keys, keys.sign(b"x", "other"))
    old = keys.sign(b"x", "expired", "--faked-system-time", PAST)
    assert "has expired" in reason(keys, old, "expired")
    signature = keys.sign(b"x", "revoked")
    with verifying([keys.public("revoked")]) as ring:
        assert ring.verify(signature).content == b"x"
    keys.revoke("revoked")
    assert "is revoked" in reason(keys, signature, "revoked")


def test_signatures_that_do_not_count(keys: Gpg) -> None:
    plain = keys.sign(b"hello hello hello", "good", "--compress-algo", "none")
    assert "changed" in reason(keys, plain.replace(b"hello hello", b"hullo hello"))
    expired = keys.sign(
        b"x", "good", "--faked-system-time", PAST, "--default-sig-expire", "1d", "--ignore-time-conflict"
    )
    assert reason(keys, expired)
    weak = keys.sign(b"x", "good", "--digest-algo", "SHA1")
    assert reason(keys, weak)
    for other in (
        b"",
        b"\x80",
        b"text",
        plain[:-1],
        plain[: len(plain) // 2],
        keys.run("--clear-sign", "--local-user", keys.fingerprints["good"], data=b"x"),
        keys.run("--detach-sign", "--local-user", keys.fingerprints["good"], data=b"x"),
        keys.run("--store", data=b"x"),
        keys.public("good"),
        os.urandom(5000),
    ):
        assert reason(keys, other), other[:20]


def test_two_signers_are_one_too_many(keys: Gpg) -> None:
    both = keys.sign(b"x", "good", "--local-user", keys.fingerprints["other"])
    assert reason(keys, both, "good", "other")
    assert reason(keys, both, "good")


def test_a_signed_bomb_is_not_inflated(keys: Gpg) -> None:
    bomb = keys.sign(bytes(40 << 20), "good", "--compress-algo", "zlib")
    assert len(bomb) < LIMIT
    assert reason(keys, bomb)


@pytest.mark.parametrize("key", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", os.urandom(3000)])
def test_what_is_no_key(key: bytes) -> None:
    with pytest.raises(CorruptContent, match="no GPG key"), verifying([key]):
        pass


def test_signing(keys: Gpg) -> None:
    for name, passphrase in (("good", None), ("locked", b"a phrase")):
        signer = Signing(keys.fingerprints[name], passphrase, keys.environ)
        signer.check()
        signature = signer.sign(b"content")
        with verifying([keys.public(name)]) as ring:
            assert ring.verify(signature).content == b"content"
        assert signer.has_signed(signature) == b"content"
        assert Signing(keys.fingerprints["other"], None, keys.environ).has_signed(signature) is None


def test_keys_that_cannot_sign(keys: Gpg) -> None:
    with pytest.raises(NotFound, match="no secret key: ABCDEF"):
        Signing("ABCDEF", None, keys.environ).check()
    for text in ("", "--help"):
        with pytest.raises(InvalidValue, match="not a fingerprint"):
            Signing(text, None, keys.environ).check()
    subprocess.run(["gpgconf", "--reload", "gpg-agent"], env=keys.environ, check=True)  # it knew the passphrase
    with pytest.raises(BuildaError, match="gpg cannot sign with"):
        Signing(keys.fingerprints["locked"], b"another", keys.environ).sign(b"x")


def test_without_gpg_the_package_is_named(keys: Gpg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match="need the program gpg"):
        Signing("A", None, {"PATH": "/nowhere"}).check()
    with pytest.raises(Unsupported, match="need the program gpg"), verifying([b"x"]):
        pass
