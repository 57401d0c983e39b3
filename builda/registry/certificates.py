"""Trusted authorities and client certificates for TLS: the certs.d directories of container tools."""

from __future__ import annotations

from builda.errors import InvalidValue, NotFound
from builda.inputfile import read_input
from builda.places import Places
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from pathlib import Path


class Tls(NamedTuple):
    """The TLS settings for one host. Without `verify` any certificate is accepted, and plain HTTP too."""

    verify: bool = True
    authorities: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()  # certificate and key


class Certificates(NamedTuple):
    """Finds certificates: in the directory that the user named, or in the first certs.d/HOST[:PORT] that exists."""

    places: Places
    cert_dir: Path | None = None

    def tls(self, host: str, *, verify: bool) -> Tls:
        """The TLS settings for `host` (with its port, if one was given)."""
        directory = self._directory(host)
        if directory is None:
            return Tls(verify)
        files = sorted(directory.iterdir())
        authorities = tuple(file for file in files if file.suffix == ".crt")
        return Tls(verify, authorities, tuple(_pair(file) for file in files if file.suffix == ".cert"))

    def check(self) -> None:
        """Raise NotFound or InvalidValue if the directory that the user named, or a file in it, cannot be used."""
        context_for(self.tls("", verify=True))

    def _directory(self, host: str) -> Path | None:
        if self.cert_dir is not None:
            if not self.cert_dir.is_dir():
                raise NotFound(f"no such directory of certificates: {self.cert_dir}")
            return self.cert_dir
        if "/" in host or host in ("", ".", ".."):
            return None
        return next((d / host for d in self.places.certificates() if (d / host).is_dir()), None)


def _pair(certificate: Path) -> tuple[Path, Path]:
    key = certificate.with_suffix(".key")
    if not key.is_file():
        raise NotFound(f"client certificate has no key beside it: {certificate}", hint=f"the key belongs in {key}")
    if not certificate.is_file():
        raise InvalidValue(f"client certificate is not a regular file: {certificate}")
    return certificate, key


def context_for(tls: Tls) -> ssl.SSLContext:
    """An SSL context that trusts the system's authorities and the policy's own, or any if nothing is verified."""
    import ssl

    if tls.verify:
        context = ssl.create_default_context()
    else:  # without the system's authorities, whose hundred certificates take ten milliseconds to read
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in tls.authorities:
        try:
            context.load_verify_locations(cadata=read_input(file, "certificate").decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise InvalidValue(f"not a PEM certificate: {file}") from error
    for certificate, key in tls.client:
        try:
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise InvalidValue(f"not a certificate with its key: {certificate}") from error
    return context
