"""Powers that `--allow` grants to the commands of a Containerfile, and that no file or image can take by itself.

A Containerfile (and the ONBUILD triggers of its base images) may come from strangers. `Permissions.check` is asked
twice: by the compiler, for an early error with its place, and by the executor right before a command gets the power.
"""

from __future__ import annotations

import posixpath

from builda.errors import InvalidValue, Unsupported
from builda.runoptions import NO_OPTIONS, RunOptions
from builda.values import dataclass, replace

_KNOWN = "there are device, device=PATH, network.host and security.insecure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """The powers granted. `host_network` is None if the build was given no network option."""

    insecure: bool = False
    host_network: bool | None = None
    all_devices: bool = False
    devices: tuple[str, ...] = ()  # absolute paths; what is below one is meant too

    def check(self, options: RunOptions, *, host_is_default: bool) -> None:
        """Raise InvalidValue for the first option of a command that needs a permission it does not have.

        `host_is_default`: commands of this build have the host's network unless something else is asked for.
        """
        if (options.cap_add or options.security_opts) and not self.insecure:
            raise InvalidValue("RUN --security=insecure is not allowed", hint="allow it with --allow security.insecure")
        host_network = host_is_default if self.host_network is None else self.host_network
        if options.network not in (None, "none") and not host_network:
            raise InvalidValue(
                f"RUN --network={options.network} is not allowed", hint="allow it with --allow network.host"
            )
        for device in options.devices:
            self._check_device(device)
        rest = replace(options, cap_add=(), security_opts=(), network=None, devices=(), hostname=None, terminal=None)
        if rest != NO_OPTIONS:
            raise InvalidValue(f"a command of a build asks for what no permission gives: {rest}")

    def _check_device(self, device: str) -> None:
        source = device.partition(":")[0]
        if not source.startswith("/"):
            raise Unsupported(
                f"CDI devices are not supported: {device}",
                hint="name the device by its path: RUN --device=/dev/NAME with --allow device=/dev/NAME",
            )
        if ".." in source.split("/"):  # behind a link it leads elsewhere than it reads
            raise InvalidValue(f"path of a device has a ..: {device}")
        path = posixpath.normpath(source)
        if not self.all_devices and not any(_is_below(path, given) for given in self.devices):
            raise InvalidValue(f"RUN --device={device} is not allowed", hint=f"allow it with --allow device={source}")


NO_PERMISSIONS = Permissions()
"""Nothing allowed."""


def parse_permissions(items: tuple[str, ...], network: str | None) -> Permissions:
    """The permissions of `--allow` and of the build's own `--network` (None: not given); Unsupported for others."""
    insecure = all_devices = False
    host_network = None if network is None else network == "host"
    devices: list[str] = []
    for item in (part.strip() for text in items for part in text.split(",")):
        name, equals, value = item.partition("=")
        match name, bool(equals):
            case "security.insecure", False:
                insecure = True
            case "network.host", False:
                host_network = True
            case "device", False:
                all_devices = True
            case "device", True:
                devices.append(_device_path(value.removeprefix("name=")))
            case _:
                raise Unsupported(f"unknown permission: {item}", hint=_KNOWN)
    return Permissions(insecure=insecure, host_network=host_network, all_devices=all_devices, devices=tuple(devices))


def _device_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise InvalidValue(f"--allow device= takes an absolute path without ..: {value}", hint="such as /dev/fuse")
    return posixpath.normpath(value)


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
