"""cosign's signatures: keys, certificates of Fulcio and entries of Rekor's log, all of them verified offline.

All cryptography is that of the packages cryptography and PyNaCl (`pip install 'builda[trust]'`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from builda.errors import CorruptContent, InvalidValue, Unsupported
from builda.oci.digest import sha256
from builda.oci.document import decode
from builda.trust.envelope import Envelope, signed_bytes
from builda.trust.policy import Fulcio, Keys, Pki, SigstoreSigned
from builda.trust.signature import BUNDLE, COSIGN_TYPE, LIMIT, SIGNATURE, Sigstore
from builda.values import NamedTuple

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
except ImportError as error:
    raise Unsupported(
        "signatures of sigstore need the package cryptography", hint="pip install 'builda[trust]'"
    ) from error

if TYPE_CHECKING:
    PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
    PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"
_ISSUER, _ISSUER_V2 = "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8"
_ENCRYPTED = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_SCRYPT_LIMIT = 1 << 17
"""Scrypt's N; with r=8 that is 128 MiB. cosign writes 1 << 15 and 1 << 16."""
_CHAIN_DEPTH = 5


class Trusted(NamedTuple):
    """The keys, or the authority, by which a signature counts, and the keys of the log that has to have it."""

    keys: Sequence[PublicKey]
    authority: _Fulcio | _Pki | None
    rekor: Sequence[ec.EllipticCurvePublicKey] | None

    @classmethod
    def of(cls, rule: SigstoreSigned, data_of: Callable[[Keys], Sequence[bytes]]) -> Trusted:
        """Keys and authorities of a rule of the policy; `data_of` reads keys. CorruptContent for a malformed key."""

        def certificates(keys: Keys | None) -> list[x509.Certificate]:
            return [] if keys is None else [one for data in data_of(keys) for one in _certificates(data)]

        authority: _Fulcio | _Pki | None = None
        if rule.fulcio is not None:
            authority = _Fulcio(rule.fulcio, certificates(rule.fulcio.authority))
        elif rule.pki is not None:
            authority = _Pki(rule.pki, certificates(rule.pki.roots), certificates(rule.pki.intermediates))
        keys = [] if rule.keys is None else [public_key(data) for data in data_of(rule.keys)]
        rekor = None if rule.rekor is None else [_log_key(data) for data in data_of(rule.rekor)]
        return cls(keys, authority, rekor)

    def verify(self, signature: Sigstore) -> str:
        """The key that the signature of the payload is by; CorruptContent saying why it does not count."""
        if signature.media_type != COSIGN_TYPE:
            raise CorruptContent(f"it is of another type, {signature.media_type}")
        raw = _base64(_annotation(signature, SIGNATURE), "signature")
        if self.authority is not None:
            return self._by_certificate(self.authority, signature, raw)
        key = next((key for key in self.keys if is_signed(key, signature.payload, raw)), None)
        if key is None:
            raise CorruptContent("it was not made with a trusted key, or its content was changed")
        if self.rekor is not None:
            _logged(self.rekor, signature, raw, _der(key))
        return name_of(key)

    def _by_certificate(self, authority: _Fulcio | _Pki, signature: Sigstore, raw: bytes) -> str:
        certificates = _certificates(_annotation(signature, CERTIFICATE).encode())
        if len(certificates) != 1:
            raise CorruptContent("it has not one certificate")
        leaf = certificates[0]
        moment = datetime.now(UTC)
        if self.rekor is not None:  # a certificate of Fulcio lasts for minutes; the log says that it was valid then
            moment = _logged(self.rekor, signature, raw, leaf.public_bytes(serialization.Encoding.DER))
        chain = signature.annotations.get(CHAIN)
        signer = authority.signer(leaf, _certificates(chain.encode()) if chain else [], moment)
        if not is_signed(_known(leaf.public_key()), signature.payload, raw):
            raise CorruptContent("it was not made with the key of its certificate, or its content was changed")
        return signer


class _Fulcio(NamedTuple):
    said: Fulcio
    roots: Sequence[x509.Certificate]

    def signer(self, leaf: x509.Certificate, chain: Sequence[x509.Certificate], moment: datetime) -> str:
        """The person that the authority gave the certificate to, valid at that moment; else CorruptContent."""
        _check_chain(leaf, chain, self.roots, moment, has_usage=True)
        issuer, emails = _issuer(leaf), _names(leaf, x509.RFC822Name)
        if issuer != self.said.issuer:
            raise CorruptContent(f"its certificate has another issuer, {issuer!r}")
        if self.said.email not in emails:
            raise CorruptContent(f"its certificate is for another person, {', '.join(emails) or 'without an address'}")
        return f"{self.said.email} ({self.said.issuer})"


class _Pki(NamedTuple):
    said: Pki
    roots: Sequence[x509.Certificate]
    intermediates: Sequence[x509.Certificate]

    def signer(self, leaf: x509.Certificate, chain: Sequence[x509.Certificate], moment: datetime) -> str:
        """The address and host that an authority gave the certificate to, valid at that moment; else CorruptContent."""
        _check_chain(leaf, [*chain, *self.intermediates], self.roots, moment, has_usage=False)
        emails, hosts = _names(leaf, x509.RFC822Name), [host.lower() for host in _names(leaf, x509.DNSName)]
        if self.said.email is not None and self.said.email not in emails:
            raise CorruptContent(f"its certificate is for another person, {', '.join(emails) or 'without an address'}")
        if self.said.hostname is not None and self.said.hostname.lower() not in hosts:
            raise CorruptContent(f"its certificate is for another host, {', '.join(hosts) or 'without a name'}")
        return " ".join(filter(None, (self.said.email, self.said.hostname)))


def _check_chain(
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    moment: datetime,
    *,
    has_usage: bool,
) -> None:
    """Return if one of the roots gave the certificate, for signing code, valid at that moment; else CorruptContent.

    Without `has_usage` a certificate may leave open what it is for.
    """
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

    def signs_code(_: object, __: object, usage: x509.ExtendedKeyUsage | None) -> None:
        if usage is not None and ExtendedKeyUsageOID.CODE_SIGNING not in usage:
            raise ValueError("the certificate is not for signing code")

    ends = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    if has_usage:
        ends = ends.require_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, signs_code)
    else:
        ends = ends.may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, signs_code)
    authorities = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    builder = PolicyBuilder().store(Store(list(roots))).time(moment).max_chain_depth(_CHAIN_DEPTH)
    builder = builder.extension_policies(ca_policy=authorities, ee_policy=ends)
    try:
        builder.build_client_verifier().verify(leaf, list(chain))
    except VerificationError as error:
        raise CorruptContent(f"its certificate is not by the authority that counts: {error}") from error


def public_key(data: bytes) -> PublicKey:
    """The public key in PEM; CorruptContent for anything else."""
    try:
        return _known(serialization.load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CorruptContent("holds no public key in PEM") from error


def is_signed(key: PublicKey, content: bytes, signature: bytes) -> bool:
    """Whether the signature of the content was made with the key; the hash is SHA-256."""
    with suppress(InvalidSignature):
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(signature, content)
        return True
    return False


def name_of(key: PublicKey) -> str:
    """The digest of a key by which errors and lists call it."""
    return f"sha256:{sha256(_der(key)).hex()}"


class Signing(NamedTuple):
    """A private key."""

    key: PrivateKey

    @classmethod
    def of(cls, data: bytes, passphrase: bytes | None, path: str) -> Signing:
        """The key in a file of cosign, or in PEM; InvalidValue naming `path` if the passphrase is another one."""
        kind, body = _pem(data, path)
        if kind in _ENCRYPTED:
            der = _decrypted(body, passphrase or b"", path)
            return cls(_private(lambda: serialization.load_der_private_key(der, None), path))
        with_passphrase = passphrase or None
        return cls(_private(lambda: serialization.load_pem_private_key(data, with_passphrase), path))

    def sign(self, content: bytes) -> Sigstore:
        """The payload with its signature."""
        annotations = {SIGNATURE: base64.b64encode(self._signature(content)).decode()}
        return Sigstore(COSIGN_TYPE, content, annotations)

    def has_signed(self, signature: Sigstore) -> bool:
        """Whether the signature is by this key."""
        with suppress(CorruptContent):
            raw = _base64(_annotation(signature, SIGNATURE), "signature")
            return is_signed(self.key.public_key(), signature.payload, raw)
        return False

    def attest(self, statement: bytes) -> Envelope:
        """The statement with its signature."""
        return Envelope(statement, (self._signature(signed_bytes(statement)),))

    def has_attested(self, envelope: Envelope) -> bool:
        """Whether one of the envelope's signatures is by this key."""
        key, content = self.key.public_key(), signed_bytes(envelope.statement)
        return any(is_signed(key, content, signature) for signature in envelope.signatures)

    def _signature(self, content: bytes) -> bytes:
        match self.key:
            case ec.EllipticCurvePrivateKey():
                return self.key.sign(content, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return self.key.sign(content, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return self.key.sign(content)


def _private(load: Callable[[], object], path: str) -> PrivateKey:
    try:
        key = load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = "--sign-passphrase-file names the file with its passphrase"
        raise InvalidValue(f"private key cannot be read, or has another passphrase: {path}", hint=hint) from error
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise Unsupported(f"private key is of a kind that sigstore does not have: {path}")


def _pem(data: bytes, path: str) -> tuple[str, bytes]:
    """The label and the content of the first PEM block."""
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    if not lines or not lines[0].startswith("-----BEGIN ") or not lines[0].endswith("-----"):
        raise InvalidValue(f"not a private key in PEM: {path}")
    kind = lines[0][len("-----BEGIN ") : -len("-----")]
    if f"-----END {kind}-----" not in lines:
        raise InvalidValue(f"private key has no end: {path}")
    text = "".join(lines[1 : lines.index(f"-----END {kind}-----")])
    try:
        return kind, base64.b64decode(text, validate=kind in _ENCRYPTED)
    except (binascii.Error, ValueError) as error:
        raise InvalidValue(f"private key is not base64: {path}") from error


def _decrypted(body: bytes, passphrase: bytes, path: str) -> bytes:
    """The key in cosign's envelope: scrypt makes a key of the passphrase, secretbox encrypts with that."""
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError as error:
        raise Unsupported(
            f"encrypted keys of cosign need the package PyNaCl: {path}", hint="pip install 'builda[trust]'"
        ) from error
    from hashlib import scrypt

    try:
        envelope = decode(body, "private key", LIMIT)
        derivation, cipher = envelope["kdf"], envelope["cipher"]
        cost = derivation["params"]
        names = derivation["name"], cipher["name"]
        numbers = [cost[name] for name in ("N", "r", "p")]
        salt, nonce, sealed = (
            _base64(text, "private key") for text in (derivation["salt"], cipher["nonce"], envelope["ciphertext"])
        )
    except (KeyError, TypeError, CorruptContent) as error:
        raise InvalidValue(f"encrypted key is not written as cosign writes it: {path}") from error
    if names != ("scrypt", "nacl/secretbox") or not all(isinstance(number, int) for number in numbers):
        raise Unsupported(f"key is encrypted in an unknown way, {names[0]} and {names[1]}: {path}")
    count, block, parallel = numbers
    if not (2 <= count <= _SCRYPT_LIMIT and count & (count - 1) == 0 and (block, parallel) == (8, 1)):
        raise Unsupported(f"key takes more time and memory to decrypt than keys of cosign: {path}")
    try:
        key = scrypt(passphrase, salt=salt, n=count, r=block, p=parallel, maxmem=256 << 20, dklen=32)
        return SecretBox(key).decrypt(sealed, nonce)
    except (CryptoError, ValueError, TypeError) as error:
        hint = "--sign-passphrase-file names the file with its passphrase"
        raise InvalidValue(f"passphrase is not that of the private key: {path}", hint=hint) from error


def _logged(keys: Sequence[ec.EllipticCurvePublicKey], signature: Sigstore, raw: bytes, signer: bytes) -> datetime:
    """When the log took the signature by that key or certificate (as DER); CorruptContent if it did not say so."""
    bundle = decode(_annotation(signature, BUNDLE).encode(), "entry of the log", LIMIT)
    entry = bundle.get("Payload")
    types = {"body": str, "integratedTime": int, "logIndex": int, "logID": str}
    if (
        bundle.keys() != {"SignedEntryTimestamp", "Payload"}
        or not isinstance(entry, dict)
        or entry.keys() != types.keys()
        or any(type(entry[name]) is not kind for name, kind in types.items())
    ):
        raise CorruptContent("entry of the log is not written as Rekor writes it")
    said = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    promise = _base64(bundle["SignedEntryTimestamp"], "entry of the log")
    if not any(is_signed(key, said, promise) for key in keys):
        raise CorruptContent("entry of the log was not made with a trusted key, or was changed")
    _check_record(decode(_base64(entry["body"], "entry of the log"), "entry of the log", LIMIT), signature, raw, signer)
    try:
        return datetime.fromtimestamp(entry["integratedTime"], UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise CorruptContent("entry of the log has no time") from error


def _check_record(record: Mapping[str, Any], signature: Sigstore, raw: bytes, signer: bytes) -> None:
    """Return if the log's entry is about this signature, its payload and its signer."""
    try:
        kind = record["kind"], record["apiVersion"]
        content, key = record["spec"]["signature"]["content"], record["spec"]["signature"]["publicKey"]["content"]
        algorithm, value = (record["spec"]["data"]["hash"][name] for name in ("algorithm", "value"))
    except (KeyError, TypeError) as error:
        raise CorruptContent("entry of the log is not written as Rekor writes it") from error
    if kind != ("hashedrekord", "0.0.1"):
        raise CorruptContent(f"entry of the log is of another kind, {kind[0]} {kind[1]}")
    if algorithm != "sha256" or value != sha256(signature.payload).hex():
        raise CorruptContent("entry of the log is about another content")
    if _base64(content, "entry of the log") != raw:
        raise CorruptContent("entry of the log is about another signature")
    if _signer_in(_base64(key, "entry of the log")) != signer:
        raise CorruptContent("entry of the log is about another key")


def _signer_in(pem: bytes) -> bytes:
    """The key or certificate in PEM, as DER."""
    if b"BEGIN CERTIFICATE" in pem:
        found = _certificates(pem)
        return found[0].public_bytes(serialization.Encoding.DER) if len(found) == 1 else b""
    return _der(public_key(pem))


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CorruptContent("holds no certificates in PEM") from error


def _issuer(leaf: x509.Certificate) -> str | None:
    """The identity provider that Fulcio wrote into a certificate; CorruptContent if it wrote two different ones."""
    found: set[str] = set()
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.UnrecognizedExtension):
            if extension.oid.dotted_string == _ISSUER:
                found.add(extension.value.value.decode(errors="replace"))
            elif extension.oid.dotted_string == _ISSUER_V2:
                found.add(_utf8_string(extension.value.value))
    if len(found) > 1:
        raise CorruptContent("its certificate names two issuers")
    return found.pop() if found else None


def _utf8_string(der: bytes) -> str:
    """The text of a UTF8String of fewer than 128 bytes, which is how the issuer is written (X.690, 8.1)."""
    if len(der) < 2 or der[0] != 0x0C or der[1] != len(der) - 2 or der[1] > 127:
        raise CorruptContent("its certificate has an issuer that cannot be read")
    return der[2:].decode(errors="replace")


def _names(leaf: x509.Certificate, kind: type[x509.RFC822Name] | type[x509.DNSName]) -> list[str]:
    """The names of a kind that the certificate is for."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(names.get_values_for_type(kind))


def _known(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return key
    raise CorruptContent("holds a key of a kind that sigstore does not have")


def _log_key(data: bytes) -> ec.EllipticCurvePublicKey:
    key = public_key(data)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CorruptContent("holds no ECDSA key, which a log has")
    return key


def _der(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _annotation(signature: Sigstore, name: str) -> str:
    text = signature.annotations.get(name)
    if text is None:
        raise CorruptContent(f"it has no annotation {name}")
    return text


def _base64(text: object, what: str) -> bytes:
    """The bytes in base64, which may be in lines."""
    lines = text if isinstance(text, str) else "!"
    try:
        return base64.b64decode(lines.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CorruptContent(f"{what} is not base64") from error
