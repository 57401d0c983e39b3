"""Check the options of commands before anything is pulled, made or run; errors name the option.

It calls the parsers that a run uses, and knows nothing of values itself.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager

from builda.builder.run import command, rootfiles, security
from builda.builder.run.volumetext import parse_volume
from builda.errors import BuildaError, InvalidValue, NotFound
from builda.isolation import rlimits
from builda.isolation.kinds import find_kind
from builda.oci.config import check_hostname

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.plan import RunOptions

_NOWHERE = rootfiles.Host("/dev/null", "/dev/null")
_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\n?")


def check(options: RunOptions) -> None:
    """Check that a command can be run with these options, as far as possible without its container.

    Raises what the parsers do (InvalidValue, NotFound, Unsupported), with the name of the option in front.
    """
    with _named("--network"):
        network = command.network_name(options)
        _check_place(network)
    for name in ("pid", "ipc", "uts", "cgroupns"):
        with _named(f"--{name}"):
            _check_place(command.namespace(name.removesuffix("ns"), getattr(options, name)))
    with _named("--ulimit"):
        rlimits.checked(security.rlimits(options.ulimits))
    with _named("--hostname"):
        check_hostname(options.hostname or "", "host name")
    with _named("--add-host"):
        rootfiles.hosts(options.add_hosts, (), lambda: "")
    with _named("--dns"):
        rootfiles.resolv_conf(options, network or "host", _NOWHERE)
    with _named("--volume"):
        for text in options.volumes:
            parse_volume(text)
    with _named("--device"):
        for text in options.devices:
            command.devices(text)
    with _named("--cap-add" if options.cap_add else "--cap-drop"):
        security.capabilities(options)
    with _named("--security-opt"):
        security.security(options.security_opts)
    if options.runtime_flags and not (kind := find_kind(options.isolation)).takes_runtime:
        raise InvalidValue(f"--runtime-flag is for OCI runtimes, which --isolation {kind.name} does without")
    _check_limits(options)


def _check_limits(options: RunOptions) -> None:
    for option, value in (("--cpuset-cpus", options.cpuset_cpus), ("--cpuset-mems", options.cpuset_mems)):
        if value and _LIST.fullmatch(value) is None:
            raise InvalidValue(f"{option}: not a list of numbers: {value}", hint="write it as in 0-3,7")
    for name in ("cpu_period", "cpu_quota", "cpu_shares"):
        amount = getattr(options, name)
        if amount is not None and amount < (-1 if name == "cpu_quota" else 0):
            raise InvalidValue(f"--{name.replace('_', '-')}: not an amount: {amount}")
    if options.memory and options.memory_swap is not None and 0 <= options.memory_swap < options.memory:
        raise InvalidValue(f"--memory-swap: less than --memory, which it includes: {options.memory_swap}")


def _check_place(namespace: str | None) -> None:
    """NotFound if the namespace ns:PATH does not exist."""
    if namespace is not None and namespace.startswith("ns:") and not os.path.exists(path := namespace[3:]):
        raise NotFound(f"no such namespace: {path}")


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Put the name of the option in front of errors."""
    try:
        yield
    except BuildaError as error:
        error.args = (f"{option}: {error}",)
        raise
