"""Resource limits of a command. They are checked before anything is started: raising one may need a capability."""

from __future__ import annotations

from builda.errors import InvalidValue, IsolationUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.spec import Rlimit


def checked(limits: tuple[Rlimit, ...]) -> tuple[tuple[str, int, int, int], ...]:
    """(name, number of RLIMIT_…, soft, hard) of each limit; -1 is unlimited.

    InvalidValue names an unknown or contradictory limit, IsolationUnavailable one that this process may not raise.
    """
    if not limits:
        return ()
    import resource

    from builda.linux import caps
    from builda.linux.syscalls import capget

    may_raise = not caps.missing(capget()[0], "CAP_SYS_RESOURCE")
    for limit in limits:
        number = getattr(resource, limit.type, None)
        if not limit.type.startswith("RLIMIT_") or number is None:
            raise InvalidValue(f"no such resource limit: {limit.type}")
        if _rank(limit.soft) > _rank(limit.hard):
            raise InvalidValue(f"soft limit above the hard one: {limit.type}={limit.soft}:{limit.hard}")
        hard = resource.getrlimit(number)[1]
        if not may_raise and _rank(limit.hard) > _rank(hard):
            raise IsolationUnavailable(
                f"this process may not raise {limit.type} above {hard}: {limit.hard}",
                hint="start builda with a higher hard limit (ulimit -H), or give it CAP_SYS_RESOURCE",
            )
    return tuple((limit.type, getattr(resource, limit.type), limit.soft, limit.hard) for limit in limits)


def _rank(value: int) -> float:
    return float("inf") if value < 0 else value
