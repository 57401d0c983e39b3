"""cosign's signatures: keys, certificates of an authority like Fulcio, and entries of a log like Rekor's."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from builda.errors import CorruptContent, InvalidValue, Unsupported
from builda.oci.digest import Digest
from builda.trust import sigstore
from builda.trust.policy import Fulcio, Keys, Pki, SigstoreSigned
from builda.trust.signature import BUNDLE, COSIGN_TYPE, SIGNATURE, Sigstore
from tests.support.signing import encrypted_key, openssl_key, openssl_signature

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ISSUER, EMAIL = "https://login.example", "alice@example.org"
HOST = x509.DNSName("build.example.org")
PAYLOAD = b'{"any": "content"}'


def pem(key: Any) -> bytes:
    if isinstance(key, x509.Certificate):
        return key.public_bytes(serialization.Encoding.PEM)
    public: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def private_pem(key: Any) -> bytes:
    made: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A root, an authority below it, a log, and a signer with a certificate of ten minutes."""

    def __init__(self, start: datetime = NOW - timedelta(minutes=1)) -> None:
        self.start = start
        self.root_key, self.key, self.log, self.signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
        self.root = self.authority("root", self.root_key, "root", self.root_key)
        self.below = self.authority("below", self.key, "root", self.root_key)

    def authority(self, name: str, key: Any, issuer: str, issuer_key: Any) -> x509.Certificate:
        usage = {"key_cert_sign": True, "crl_sign": True}
        others = (
            "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
            "encipher_only decipher_only"
        )
        every = x509.KeyUsage(**{**dict.fromkeys(others.split(), False), **usage})
        builder = self.builder(name, key, issuer, timedelta(days=3000))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return builder.add_extension(every, critical=True).sign(issuer_key, hashes.SHA256())

    def leaf(
        self,
        *,
        email: str = EMAIL,
        issuers: tuple[tuple[str, bytes], ...] = ((sigstore._ISSUER, ISSUER.encode()),),
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
        by: Any = None,
        life: timedelta = timedelta(minutes=10),
    ) -> x509.Certificate:
        builder = self.builder("", self.signer, "below", life)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(email), HOST]), critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        for oid, value in issuers:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
            )
        return builder.sign(by or self.key, hashes.SHA256())

    def builder(self, name: str, key: Any, issuer: str, life: timedelta) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(named(name) if name else x509.Name([]))
        builder = builder.issuer_name(named(issuer)).public_key(key.public_key())
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(self.start)
            .not_valid_after(self.start + life)
        )

    def bundle(self, signature: bytes, signer: bytes, payload: bytes = PAYLOAD, **changes: Any) -> str:
        """What the log says of a signature by the key or certificate in PEM `signer`."""
        record = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": Digest.of(payload).encoded}},
                "signature": {"content": text(signature), "publicKey": {"content": text(signer)}},
            },
            **changes.pop("record", {}),
        }
        time = int(changes.pop("time", NOW).timestamp())
        entry = {"body": text(json.dumps(record).encode()), "integratedTime": time, "logIndex": 7, "logID": "ab"}
        said = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        promise = changes.pop("log", self.log).sign(said, ec.ECDSA(hashes.SHA256()))
        return json.dumps({"SignedEntryTimestamp": text(promise), "Payload": {**entry, **changes}})

    def signed(self, certificate: x509.Certificate | None = None, **changes: Any) -> Sigstore:
        """A signature of the signer with a certificate and what the log says of it."""
        raw = self.signer.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))
        signer = pem(certificate) if certificate is not None else pem(self.signer)
        annotations = {SIGNATURE: text(raw), BUNDLE: self.bundle(raw, signer, **changes)}
        if certificate is not None:
            annotations[sigstore.CERTIFICATE] = signer.decode()
            annotations[sigstore.CHAIN] = (pem(self.below) + pem(self.root)).decode()
        return Sigstore(COSIGN_TYPE, PAYLOAD, annotations)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def by_certificate(authority: Authority) -> sigstore.Trusted:
    fulcio = Fulcio(Keys(data=(pem(authority.root),)), ISSUER, EMAIL)
    return trusted(SigstoreSigned(None, fulcio, Keys(data=(pem(authority.log),))))


def trusted(rule: SigstoreSigned) -> sigstore.Trusted:
    return sigstore.Trusted.of(rule, lambda keys: keys.data)


def changed(made: Sigstore, /, **annotations: str | None) -> Sigstore:
    names = {"signature": SIGNATURE, "bundle": BUNDLE, "certificate": sigstore.CERTIFICATE, "chain": sigstore.CHAIN}
    merged = {**made.annotations, **{names[name]: value for name, value in annotations.items()}}
    return made._replace(annotations={name: value for name, value in merged.items() if value is not None})


@pytest.mark.parametrize("kind", ["P-256", "P-384", "rsa", "ed25519"])
def test_signatures_of_each_kind_of_key(kind: str) -> None:
    key: Any = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    signing = sigstore.Signing.of(private_pem(key), None, "k")
    signature = signing.sign(PAYLOAD)
    rule = trusted(SigstoreSigned(Keys(data=(pem(ec.generate_private_key(ec.SECP256R1())), pem(key)))))
    assert rule.verify(signature) == sigstore.name_of(key.public_key())
    assert signing.has_signed(signature)
    for other in (signature._replace(payload=b"x"), changed(signature, signature=text(b"x"))):
        assert not signing.has_signed(other)
        with pytest.raises(CorruptContent, match="not made with a trusted key"):
            rule.verify(other)


def test_openssl_makes_the_same_signatures(tmp_path: Path) -> None:
    private, public = openssl_key(tmp_path)
    signature = Sigstore(COSIGN_TYPE, PAYLOAD, {SIGNATURE: openssl_signature(private, PAYLOAD)})
    assert trusted(SigstoreSigned(Keys(data=(public.read_bytes(),)))).verify(signature)


def test_another_media_type_is_no_signature(authority: Authority) -> None:
    rule = trusted(SigstoreSigned(Keys(data=(pem(authority.signer),))))
    with pytest.raises(CorruptContent, match="of another type, text/plain"):
        rule.verify(authority.signed()._replace(media_type="text/plain"))


@pytest.mark.parametrize(
    "key", [b"", b"text", b"-----BEGIN PUBLIC KEY-----\n", pem(dsa.generate_private_key(1024)), b"\xff" * 100]
)
def test_what_is_no_public_key(key: bytes) -> None:
    with pytest.raises(CorruptContent, match=r"no public key|a key of a kind"):
        trusted(SigstoreSigned(Keys(data=(key,))))


# The log


def test_a_key_that_a_log_has_to_know(authority: Authority) -> None:
    rule = trusted(SigstoreSigned(Keys(data=(pem(authority.signer),)), None, Keys(data=(pem(authority.log),))))
    good = authority.signed()
    assert rule.verify(good)
    with pytest.raises(CorruptContent, match=f"no annotation {BUNDLE}"):
        rule.verify(changed(good, bundle=None))
    key = pem(ed25519.Ed25519PrivateKey.generate())
    other = SigstoreSigned(Keys(data=(pem(authority.signer),)), None, Keys(data=(key,)))
    with pytest.raises(CorruptContent, match="holds no ECDSA key"):
        trusted(other)


def test_entries_of_the_log_that_do_not_count(authority: Authority) -> None:
    rule = trusted(SigstoreSigned(Keys(data=(pem(authority.signer),)), None, Keys(data=(pem(authority.log),))))
    other = ec.generate_private_key(ec.SECP256R1())
    raw = base64.b64decode(authority.signed().annotations[SIGNATURE])
    good = changed(authority.signed(), signature=text(raw), bundle=authority.bundle(raw, pem(authority.signer)))
    assert rule.verify(good)
    for bundle, words in (
        (authority.bundle(raw, pem(authority.signer), log=other), "not made with a trusted key"),
        (authority.bundle(raw, pem(authority.signer), logIndex=8), "was changed"),
        (authority.bundle(raw, pem(authority.signer), integratedTime=True), "not written as Rekor"),
        (authority.bundle(raw, pem(authority.signer), more=1), "not written as Rekor"),
        (authority.bundle(raw, pem(authority.signer), b"other"), "about another content"),
        (authority.bundle(b"other", pem(authority.signer)), "about another signature"),
        (authority.bundle(raw, pem(other)), "about another key"),
        (authority.bundle(raw, b"no key"), "no public key"),
        (authority.bundle(raw, pem(authority.signer), record={"kind": "intoto"}), "of another kind, intoto"),
        (authority.bundle(raw, pem(authority.signer), record={"apiVersion": "0.0.2"}), "of another kind"),
        (authority.bundle(raw, pem(authority.signer), record={"spec": []}), "not written as Rekor"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not written as Rekor"),
    ):
        with pytest.raises(CorruptContent, match=words):
            rule.verify(changed(good, bundle=bundle))


# Certificates


def test_a_certificate_of_the_authority(authority: Authority) -> None:
    rule = by_certificate(authority)
    assert rule.verify(authority.signed(authority.leaf())) == f"{EMAIL} ({ISSUER})"
    der = b"\x0c" + bytes([len(ISSUER)]) + ISSUER.encode()
    both = ((sigstore._ISSUER, ISSUER.encode()), (sigstore._ISSUER_V2, der))
    assert rule.verify(authority.signed(authority.leaf(issuers=both)))
    assert rule.verify(authority.signed(authority.leaf(issuers=both[1:])))


def test_certificates_that_do_not_count(authority: Authority) -> None:
    rule, other = by_certificate(authority), Authority()
    v1, v2 = sigstore._ISSUER, sigstore._ISSUER_V2
    for leaf, changes, words in (
        (authority.leaf(email="mallory@example.org"), {}, "for another person, mallory@example.org"),
        (authority.leaf(issuers=((v1, b"https://other"),)), {}, "has another issuer, 'https://other'"),
        (authority.leaf(issuers=()), {}, "has another issuer, None"),
        (authority.leaf(issuers=((v1, ISSUER.encode()), (v2, b"\x0c\x01x"))), {}, "two issuers"),
        (authority.leaf(issuers=((v2, b"\x0c\x7fx"),)), {}, "an issuer that cannot be read"),
        (authority.leaf(usage=ExtendedKeyUsageOID.SERVER_AUTH), {}, "not by the authority"),
        (authority.leaf(by=other.key), {}, "not by the authority"),
        (authority.leaf(), {"time": NOW + timedelta(hours=1)}, "not by the authority"),
        (authority.leaf(), {"time": NOW - timedelta(hours=1)}, "not by the authority"),
        (other.leaf(), {}, "not by the authority"),
    ):
        with pytest.raises(CorruptContent, match=words):
            rule.verify(authority.signed(leaf, **changes))


def test_a_certificate_needs_its_chain_and_its_key(authority: Authority) -> None:
    rule, good = by_certificate(authority), authority.signed(authority.leaf())
    with pytest.raises(CorruptContent, match="not by the authority"):
        rule.verify(changed(good, chain=None))
    with pytest.raises(CorruptContent, match="no annotation"):
        rule.verify(changed(good, certificate=None))
    with pytest.raises(CorruptContent, match="no certificates in PEM"):
        rule.verify(changed(good, certificate="text"))
    with pytest.raises(CorruptContent, match="has not one certificate"):
        rule.verify(changed(good, certificate=good.annotations[sigstore.CERTIFICATE] * 2))
    with pytest.raises(CorruptContent, match="about another key"):
        rule.verify(changed(good, certificate=pem(authority.leaf()).decode()))
    mallory = ec.generate_private_key(ec.SECP256R1())
    raw = mallory.sign(PAYLOAD, ec.ECDSA(hashes.SHA256()))
    leaf = pem(authority.leaf())
    with pytest.raises(CorruptContent, match="not made with the key of its certificate"):
        rule.verify(changed(good, signature=text(raw), certificate=leaf.decode(), bundle=authority.bundle(raw, leaf)))


def by_pki(authority: Authority, *, email: str | None = EMAIL, hostname: str | None = None) -> sigstore.Trusted:
    pki = Pki(Keys(data=(pem(authority.root),)), Keys(data=(pem(authority.below),)), email, hostname)
    return trusted(SigstoreSigned(None, pki=pki))


def test_a_certificate_of_an_authority_of_ones_own() -> None:
    authority = Authority(start=datetime.now(UTC) - timedelta(minutes=1))
    good = changed(authority.signed(authority.leaf()), bundle=None, chain=None)
    assert by_pki(authority).verify(good) == EMAIL
    assert by_pki(authority, hostname="BUILD.example.org").verify(good) == f"{EMAIL} BUILD.example.org"
    assert by_pki(authority, email=None, hostname="build.example.org").verify(good)
    anything = changed(authority.signed(authority.leaf(usage=None)), bundle=None)
    assert by_pki(authority).verify(anything)
    for rule, signature, words in (
        (by_pki(authority, email="mallory@example.org"), good, f"for another person, {EMAIL}"),
        (by_pki(authority, hostname="example.org"), good, "for another host, build.example.org"),
        (by_pki(Authority(start=datetime.now(UTC))), good, "not by the authority"),
        (by_pki(authority), changed(good, signature=text(b"x")), "not made with the key of its certificate"),
        (by_pki(authority), authority.signed(authority.leaf(usage=ExtendedKeyUsageOID.SERVER_AUTH)), "not by the auth"),
        (by_pki(authority), authority.signed(authority.leaf(life=timedelta(seconds=1))), "not by the authority"),
    ):
        with pytest.raises(CorruptContent, match=words):
            rule.verify(signature)


def test_signatures_may_be_in_lines(authority: Authority) -> None:
    rule, good = trusted(SigstoreSigned(Keys(data=(pem(authority.signer),)))), authority.signed()
    line = good.annotations[SIGNATURE]
    assert rule.verify(changed(good, signature=f"{line[:40]}\r\n{line[40:]}\n"))
    with pytest.raises(CorruptContent, match="not base64"):
        rule.verify(changed(good, signature=f"{line[:40]} {line[40:]}"))


# Private keys


@pytest.mark.parametrize("kind", ["COSIGN", "SIGSTORE"])
def test_encrypted_keys_of_cosign(tmp_path: Path, kind: str) -> None:
    private, public = openssl_key(tmp_path)
    signing = sigstore.Signing.of(encrypted_key(private, b"phrase", kind=kind), b"phrase", "k")
    assert trusted(SigstoreSigned(Keys(data=(public.read_bytes(),)))).verify(signing.sign(PAYLOAD))
    for phrase in (b"other", b"", None):
        with pytest.raises(InvalidValue, match="passphrase is not that of the private key: k"):
            sigstore.Signing.of(encrypted_key(private, b"phrase", kind=kind), phrase, "k")


def envelope(key: bytes, **changes: Any) -> bytes:
    lines = key.decode().splitlines()
    value = json.loads(base64.b64decode("".join(lines[1:-1])))
    for path, item in changes.items():
        *parents, last = path.split("__")
        place = value
        for parent in parents:
            place = place[parent]
        place[last] = item
    return f"{lines[0]}\n{text(json.dumps(value).encode())}\n{lines[-1]}\n".encode()


def test_envelopes_that_cost_too_much_or_mean_nothing(tmp_path: Path) -> None:
    key = encrypted_key(openssl_key(tmp_path)[0], b"phrase")
    assert sigstore.Signing.of(envelope(key), b"phrase", "k")
    for changes, words in (
        ({"kdf__params__N": 1 << 30}, "more time and memory"),
        ({"kdf__params__N": 3}, "more time and memory"),
        ({"kdf__params__N": "32768"}, "unknown way"),
        ({"kdf__params__r": 1 << 20}, "more time and memory"),
        ({"kdf__name": "argon2"}, "unknown way, argon2"),
        ({"cipher__name": "rot13"}, "unknown way, scrypt and rot13"),
        ({"cipher__nonce": "x"}, "not written as cosign"),
        ({"cipher__nonce": text(b"short")}, "passphrase is not"),
        ({"kdf": []}, "not written as cosign"),
        ({"ciphertext": ""}, "passphrase is not"),
    ):
        with pytest.raises((InvalidValue, Unsupported), match=words):
            sigstore.Signing.of(envelope(key, **changes), b"phrase", "k")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a private key in PEM: k"),
        (b"text", "not a private key in PEM: k"),
        (b"-----BEGIN PRIVATE KEY-----\nAA==\n", "has no end: k"),
        (b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (
            b"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n#\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n",
            "not base64",
        ),
        (private_pem(dsa.generate_private_key(1024)), "of a kind that sigstore does not have"),
    ],
)
def test_what_is_no_private_key(data: bytes, words: str) -> None:
    with pytest.raises((InvalidValue, Unsupported), match=words):
        sigstore.Signing.of(data, None, "k")


def test_keys_in_pem_may_be_encrypted() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(b"phrase")
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    assert sigstore.Signing.of(data, b"phrase", "k").sign(PAYLOAD)
    for phrase in (None, b"other"):
        with pytest.raises(InvalidValue, match="has another passphrase: k"):
            sigstore.Signing.of(data, phrase, "k")
