"""GPG, as a program: `verifying` knows the keys it is given and no others, `Signing` uses the caller's keyring.

What gpg says is read from its status lines (doc/DETAILS of GnuPG), which no content of a message can imitate.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from builda.errors import BuildaError, CorruptContent, InvalidValue, NotFound, Unsupported
from builda.values import NamedTuple

LIMIT = 4 << 20
"""Bytes that a signed content may have, which gpg may have to inflate."""
_TIMEOUT = 60
_ASKING_TIMEOUT = 600
"""Seconds for a signature, for which gpg's agent may ask the user for a passphrase."""
_WEAK_HASHES = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}
_PLAIN = ("--no-options", "--batch", "--no-tty", "--no-greeting", "--no-armor", "--no-auto-check-trustdb")
_FAULTS = {
    "BADSIG": "its content was changed",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired: {}",
    "REVKEYSIG": "the key is revoked: {}",
    "NO_PUBKEY": "its key is not one of those that count: {}",
    "ERRSIG": "it cannot be verified with the key {}",
    "NODATA": "it is no signed message",
    "UNEXPECTED": "it is no signed message",
    "FAILURE": "gpg cannot read it",
}
"""What is wrong with a signature by gpg's words for it, with the first argument of its status line."""


class Verified(NamedTuple):
    """The content that was signed, and the fingerprint of the primary key that the signature is by."""

    content: bytes
    fingerprint: str


class _Done(NamedTuple):
    output: bytes
    status: Sequence[Sequence[str]]
    failed: bool
    errors: str


class Keyring:
    """Public keys in a directory of their own."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._fingerprints: set[str] = set()

    @property
    def fingerprints(self) -> frozenset[str]:
        """Those of the primary keys."""
        return frozenset(self._fingerprints)

    def add(self, keys: bytes) -> None:
        """Know these keys, armored or not; CorruptContent if there is none among them."""
        done = self._gpg("--import", data=keys, armored=True)
        found = {line[2] for line in done.status if line[0] == "IMPORT_OK" and len(line) > 2}
        if not found:
            raise CorruptContent("holds no GPG key")
        self._fingerprints |= found

    def verify(self, signature: bytes) -> Verified:
        """The signed content; CorruptContent with the reason if the signature does not count.

        It has one signer, whose key is known, has not expired and is not revoked.
        """
        path = os.path.join(self._home, "message")
        with open(path, "wb") as file:
            file.write(signature)
        done = self._gpg("--max-output", str(LIMIT), "--output", "-", "--verify", path)
        words = [line[0] for line in done.status]
        for word, reason in _FAULTS.items():
            line = next((line for line in done.status if line[0] == word), None)
            if line is not None:
                raise CorruptContent(reason.format(line[1] if len(line) > 1 else ""))
        valid = [line for line in done.status if line[0] == "VALIDSIG"]
        counts = [words.count(word) for word in ("NEWSIG", "GOODSIG", "VALIDSIG", "PLAINTEXT")]
        if done.failed or counts != [1, 1, 1, 1] or len(valid[0]) < 11:
            raise CorruptContent("it is not a message with one signature")
        if valid[0][9] != "00":  # the class of signatures of binary documents
            raise CorruptContent(f"it is a signature of another class: {valid[0][9]}")
        if valid[0][8] in _WEAK_HASHES:
            raise CorruptContent(f"it is made with {_WEAK_HASHES[valid[0][8]]}, a hash that can be forged")
        primary = valid[0][10]
        if primary not in self._fingerprints:
            raise CorruptContent(f"its key is not one of those that count: {primary}")
        return Verified(done.output, primary)

    def _gpg(self, *arguments: str, data: bytes = b"", armored: bool = False) -> _Done:
        ring = os.path.join(self._home, "keys.gpg")
        plain = [option for option in _PLAIN if not (armored and option == "--no-armor")]
        own = ["--homedir", self._home, "--no-default-keyring", "--keyring", ring, "--trust-model", "always"]
        offline = ["--no-auto-key-retrieve", "--no-auto-key-import", "--disable-dirmngr", "--no-autostart"]
        environ = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": self._home}
        return _run([*plain, *own, *offline, *arguments], data, environ)


@contextmanager
def verifying(keys: Sequence[bytes]) -> Iterator[Keyring]:
    """A keyring of these keys alone; CorruptContent if one of them is none."""
    with tempfile.TemporaryDirectory(prefix="builda-gpg-") as home:
        ring = Keyring(home)
        for key in keys:
            ring.add(key)
        yield ring


class Signing(NamedTuple):
    """A secret key of the caller's keyring. Without a passphrase gpg's agent asks for it, if it needs one."""

    fingerprint: str
    passphrase: bytes | None
    environ: Mapping[str, str]

    def check(self) -> None:
        """Return if the key signs, with this passphrase; NotFound if the keyring does not have it."""
        if not self.fingerprint or self.fingerprint.startswith("-"):
            raise InvalidValue(f"not a fingerprint of a GPG key: {self.fingerprint!r}")
        try:
            self.sign(b"")
        except BuildaError:
            self._find()
            raise

    def _find(self) -> None:
        done = _run(["--batch", "--no-tty", "--with-colons", "--list-secret-keys", self.fingerprint], b"", self.environ)
        if done.failed or b"sec:" not in done.output:
            raise NotFound(
                f"GPG keyring has no secret key: {self.fingerprint}", hint="gpg --list-secret-keys shows what it has"
            )

    def sign(self, content: bytes) -> bytes:
        """A message with the content and the signature, in binary form."""
        options = ["--batch", "--no-tty", "--no-armor", "--local-user", self.fingerprint, "--output", "-"]
        if self.passphrase is None:
            done = _run([*options, "--sign"], content, self.environ, timeout=_ASKING_TIMEOUT)
        else:
            done = self._with_passphrase(options, content, self.passphrase)
        if done.failed or not done.output:
            raise BuildaError(f"gpg cannot sign with {self.fingerprint}: {_last(done.errors)}")
        return done.output

    def _with_passphrase(self, options: list[str], content: bytes, passphrase: bytes) -> _Done:
        reading, writing = os.pipe()
        try:
            os.write(writing, passphrase + b"\n")
            os.close(writing)
            loopback = ["--pinentry-mode", "loopback", "--passphrase-fd", str(reading)]
            return _run([*options, *loopback, "--sign"], content, self.environ, reading)
        finally:
            os.close(reading)

    def has_signed(self, signature: bytes) -> bytes | None:
        """The content of a signature by this key; None if it is none. This trusts the caller's keyring."""
        with tempfile.NamedTemporaryFile(prefix="builda-gpg-") as file:
            file.write(signature)
            file.flush()
            plain = ["--batch", "--no-tty", "--no-auto-key-retrieve", "--trust-model", "always"]
            done = _run([*plain, "--output", "-", "--verify", file.name], b"", self.environ)
        valid = next((line for line in done.status if line[0] == "VALIDSIG"), ())
        wanted = self.fingerprint.upper().removeprefix("0X")
        if done.failed or not any(word.endswith(wanted) for word in (*valid[1:2], *valid[10:11])):
            return None
        return done.output


def _run(
    arguments: list[str], data: bytes, environ: Mapping[str, str], *descriptors: int, timeout: int = _TIMEOUT
) -> _Done:
    with open(os.memfd_create("builda-gpg-status"), "r+b") as status:  # a pipe could fill up
        command = ["gpg", "--status-fd", str(status.fileno()), *arguments]
        try:
            done = subprocess.run(
                command,
                input=data,
                capture_output=True,
                env=dict(environ),
                pass_fds=(status.fileno(), *descriptors),
                timeout=timeout,
            )
        except FileNotFoundError as error:
            hint = "install the package gnupg"
            raise Unsupported("signatures of this kind need the program gpg", hint=hint) from error
        except subprocess.TimeoutExpired as error:
            raise BuildaError(f"gpg took longer than {timeout} seconds") from error
        status.seek(0)
        said = status.read().decode(errors="replace")
    words = [tuple(line.removeprefix("[GNUPG:] ").split(" ")) for line in said.splitlines() if line]
    return _Done(done.stdout, words, done.returncode != 0, done.stderr.decode(errors="replace"))


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("gpg: ") if lines else "it does not say why"
