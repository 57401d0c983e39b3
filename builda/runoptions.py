"""Options of commands. A module of its own, because a list of working containers needs this part of `plan` alone."""

from __future__ import annotations

from builda.values import dataclass, field, replace, values_of

_USERNS = ("userns", "userns_uid_map", "userns_gid_map", "userns_uid_map_user", "userns_gid_map_group")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of running a command. None and () mean that an option was not given, so two can be merged (`over`).

    `from` stores one with the working container; `run` and RUN add theirs on top.
    """

    isolation: str | None = None  # name of one of the isolations, such as native
    runtime: str | None = None
    runtime_flags: tuple[str, ...] = ()
    network: str | None = None  # host, none, private, ns:PATH
    pid: str | None = None  # private, host, ns:PATH
    ipc: str | None = None
    uts: str | None = None
    cgroupns: str | None = None
    cgroup_parent: str | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()  # host:container[:options]
    env: tuple[str, ...] = field(default=(), repr=False)  # NAME=VALUE, below the image's own variables
    ulimits: tuple[str, ...] = ()  # type=soft[:hard]
    security_opts: tuple[str, ...] = ()
    shm_size: int | None = None  # bytes
    memory: int | None = None  # bytes
    memory_swap: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    add_hosts: tuple[str, ...] = ()  # name:ip
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    http_proxy: bool | None = None
    hostname: str | None = None
    no_hostname: bool | None = None
    no_hosts: bool | None = None
    no_pivot: bool | None = None
    group_add: tuple[str, ...] = ()
    userns: str | None = None  # host, private, auto[:…], ns:PATH
    userns_uid_map: str | None = None  # container:host:size,…
    userns_gid_map: str | None = None
    userns_uid_map_user: str | None = None  # whose ranges in /etc/subuid
    userns_gid_map_group: str | None = None
    terminal: bool | None = None  # None: when stdin and stdout are one

    @property
    def names_a_user_namespace(self) -> bool:
        """Whether an option about user namespaces was given, even one that asks for the caller's own."""
        return any(getattr(self, name) for name in _USERNS)

    def over(self, base: RunOptions) -> RunOptions:
        """`base` with these options on top: those given here win, lists are appended to the base's.

        Options about user namespaces belong together: any of them here replaces all of them there.
        """
        said = {name: value for name, value in values_of(self).items() if value not in (None, ())}
        for name, value in said.items():
            if isinstance(value, tuple):
                said[name] = (*getattr(base, name), *value)
        if any(name in said for name in _USERNS):
            said = dict.fromkeys(_USERNS) | said
        return replace(base, **said)


NO_OPTIONS = RunOptions()
"""Nothing said."""
