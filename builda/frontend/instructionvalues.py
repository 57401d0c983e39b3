"""Values of instructions that are more than text: ports, modes, checksums and signals.

Read at the first instruction that has one: most Containerfiles have few of them.
"""

from __future__ import annotations

import re

from builda.frontend.instructions import fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.plan import Location

# Not compiled here: re does that at the first use and remembers it.
_PORTS = r"[0-9]{1,7}(-[0-9]{1,7})?"
_CHECKSUM = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|[0-9a-f]{7,64}"
_CLAUSE = r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+"
_MODE = rf"[0-7]{{1,4}}|0[0-7]{{4}}|{_CLAUSE}(?:,{_CLAUSE})*"
_SIGNALS = frozenset(
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ".split()
)


def ports_of(word: str, at: Location) -> list[str]:
    """`N[/proto]` of one EXPOSE word, ranges spelt out; a host part is dropped, as it means nothing in an image."""
    *before, ports = word.split(":")
    ports, _, protocol = ports.partition("/")
    protocol = protocol.lower() or "tcp"
    if re.fullmatch(_PORTS, ports) is None or protocol not in ("tcp", "udp", "sctp"):
        fail(at, f"invalid port: {word}", "it is N, N-M, N/tcp or N/udp")
    numbers = range(*_first_and_end(ports))
    if not numbers or numbers[-1] > 65535:
        fail(at, f"invalid port: {word}", "ports are 0 to 65535")
    if before:
        _check_host_part(word, ":".join(before[:-1]), before[-1], len(numbers), at)
    return [f"{port}/{protocol}" for port in numbers]


def _first_and_end(ports: str) -> tuple[int, int]:
    first, _, last = ports.partition("-")
    return int(first), int(last or first) + 1


def _check_host_part(word: str, address: str, ports: str, count: int, at: Location) -> None:
    """Refuse `[address:][ports:]` in front of a port that Docker would not take for `run --publish` either."""
    import ipaddress

    if address:
        try:
            ipaddress.ip_address(address[1:-1] if address.startswith("[") and address.endswith("]") else address)
        except ValueError:
            fail(at, f"invalid IP address in a port: {word}", "EXPOSE takes ports only")
    if not ports:
        return
    numbers = range(*_first_and_end(ports)) if re.fullmatch(_PORTS, ports) else range(0)
    if not numbers or numbers[-1] > 65535 or (count > 1 and len(numbers) != count):
        fail(at, f"invalid port: {word}", "EXPOSE takes ports only")


def check_mode(mode: str, at: Location) -> None:
    """Raise an error at `at` if a --chmod is not a mode."""
    if not re.fullmatch(_MODE, mode):
        fail(at, f"not a mode: {mode}", "modes are octal (0755) or symbolic (u+x)")


def check_checksum(checksum: str, at: Location) -> None:
    """Refuse a --checksum that neither a URL nor a repository can have."""
    if not re.fullmatch(_CHECKSUM, checksum):
        fail(at, f"not a checksum: {checksum}", "it is sha256: and 64 hexadecimal digits, or a commit")


def is_signal(text: str) -> bool:
    """Whether a container's runtime knows the signal: a number but 0, or a name with or without SIG."""
    if re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        return int(text) != 0
    name = text.upper().removeprefix("SIG")
    realtime = re.fullmatch(r"RT(?:MIN(?:\+([0-9]{1,2}))?|MAX(?:-([0-9]{1,2}))?)", name)
    if realtime is not None:
        return int(realtime[1] or realtime[2] or 0) <= (15 if realtime[1] else 14)
    return name in _SIGNALS
