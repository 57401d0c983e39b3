"""Keys of GPG and of sigstore for tests, and signatures that gpg and openssl make without builda."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builda.oci.digest import Digest
from tests.conftest import clean_environ


@dataclass(frozen=True)
class Gpg:
    """A keyring with secret keys, each by its name."""

    home: str
    fingerprints: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which gpg uses this keyring."""
        return {**clean_environ(), "GNUPGHOME": self.home, "LC_ALL": "C"}

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        """What gpg writes to its standard output."""
        command = ["gpg", "--batch", "--no-tty", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, env=self.environ, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(self, name: str, *options: str, passphrase: str = "", kind: str = "ed25519", life: str = "never") -> str:
        """A new key's fingerprint."""
        plain = ["--pinentry-mode", "loopback", "--passphrase", passphrase]
        self.run(*plain, *options, "--quick-gen-key", f"{name} <{name}@example.org>", kind, "sign", life)
        lines = self.run("--with-colons", "--list-keys", f"{name}@example.org").decode().splitlines()
        self.fingerprints[name] = next(line.split(":")[9] for line in lines if line.startswith("fpr:"))
        return self.fingerprints[name]

    def revoke(self, name: str) -> None:
        """The key is revoked."""
        path = Path(self.home, "openpgp-revocs.d", f"{self.fingerprints[name]}.rev")
        self.run("--import", data=path.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    def public(self, *names: str) -> bytes:
        """The public keys."""
        return self.run("--export", *(self.fingerprints[name] for name in names))

    def sign(self, content: bytes, name: str, *options: str) -> bytes:
        """The content with a signature."""
        return self.run("--local-user", self.fingerprints[name], *options, "--sign", data=content)


@contextmanager
def gpg() -> Iterator[Gpg]:
    """An empty keyring, in a directory with a short name: gpg's agent has its socket there."""
    home = tempfile.mkdtemp(prefix="gpg-", dir="/tmp")
    made = Gpg(home)
    try:
        yield made
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=made.environ, capture_output=True, timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def payload(digest: Digest, identity: str, kind: str = "atomic container signature", **optional: object) -> bytes:
    """What is signed, as skopeo writes it."""
    image, name = {"docker-manifest-digest": str(digest)}, {"docker-reference": identity}
    return json.dumps({"critical": {"type": kind, "image": image, "identity": name}, "optional": optional}).encode()


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """What openssl writes to its standard output."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, timeout=60, env=os.environ)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def openssl_key(directory: Path, name: str = "key") -> tuple[Path, Path]:
    """A private and a public key on P-256 in PEM, neither of them encrypted."""
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    private.write_bytes(openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"))
    public.write_bytes(openssl("pkey", "-in", str(private), "-pubout"))
    return private, public


def openssl_signature(private: Path, content: bytes) -> str:
    """The signature as cosign writes it: ECDSA with SHA-256, in base64."""
    return base64.b64encode(openssl("dgst", "-sha256", "-sign", str(private), data=content)).decode()


def encrypted_key(private: Path, passphrase: bytes, *, kind: str = "COSIGN", cost: int = 1 << 10) -> bytes:
    """The private key in cosign's envelope."""
    from hashlib import scrypt

    from nacl.secret import SecretBox

    der = openssl("pkcs8", "-topk8", "-nocrypt", "-in", str(private), "-outform", "DER")
    salt, nonce = os.urandom(32), os.urandom(24)
    key = scrypt(passphrase, salt=salt, n=cost, r=8, p=1, maxmem=256 << 20, dklen=32)
    texts = [base64.b64encode(item).decode() for item in (salt, nonce, SecretBox(key).encrypt(der, nonce).ciphertext)]
    envelope = {
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": 8, "p": 1}, "salt": texts[0]},
        "cipher": {"name": "nacl/secretbox", "nonce": texts[1]},
        "ciphertext": texts[2],
    }
    body = base64.b64encode(json.dumps(envelope).encode()).decode()
    lines = "\n".join(body[start : start + 64] for start in range(0, len(body), 64))
    name = f"ENCRYPTED {kind} PRIVATE KEY-----"
    return f"-----BEGIN {name}\n{lines}\n-----END {name}\n".encode()
