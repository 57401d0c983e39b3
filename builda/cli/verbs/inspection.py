"""The values of `inspect`: by the keys of Buildah's JSON, and by the field names that its templates use."""

from __future__ import annotations

from collections.abc import Mapping

from builda.cli.format.gofuncs import Nanoseconds, Nil, NilList, NilMap, NilSet, Set, Struct, Time
from builda.oci.config import config_to_json
from builda.oci.docker import every_field
from builda.oci.document import decode_any
from builda.runoptions import NO_OPTIONS, RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.oci.config import History, ImageConfig
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image

_TYPE = "buildah 0.0.1"
_NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time."""
_OCI_INNER = frozenset("User ExposedPorts Env Entrypoint Cmd Volumes WorkingDir Labels StopSignal ArgsEscaped".split())


def of_container(container: WorkingContainer, image: Image | None) -> Struct:
    """A working container; `image` is its base when the store still has it."""
    return _whole(
        container.config,
        image,
        {
            "FromImage": container.image,
            "FromImageID": container.image_id.encoded if container.image_id else "",
            "FromImageDigest": str(container.image_digest or ""),
            "Container": container.name,
            "ContainerID": container.id,
            "MountPoint": container.mount_point or "",
            "ImageAnnotations": dict(container.annotations),
            "ImageCreatedBy": container.created_by or "",
            "History": [entry.to_json() for entry in _history_of(container)] or None,
        },
        container.options,
    )


def of_image(image: Image) -> Struct:
    """An image, in the same shape."""
    return _whole(
        image.config,
        image,
        {
            "FromImage": image.names[0] if image.names else "",
            "FromImageID": image.id.encoded,
            "FromImageDigest": str(image.digest),
            "Container": "",
            "ContainerID": "",
            "MountPoint": "",
            "ImageAnnotations": dict(image.manifest.annotations),
            "ImageCreatedBy": "",
            "History": [entry.to_json() for entry in image.config.history] or None,
        },
        NO_OPTIONS,
    )


def _history_of(container: WorkingContainer) -> tuple[History, ...]:
    return (*container.config.history, *(layer.history for layer in container.layers), *container.history)


def _whole(config: ImageConfig, image: Image | None, own: Mapping[str, Any], options: RunOptions) -> Struct:
    oci, docker = _oci(config), _docker(config)
    values: dict[str, Any] = {
        "Type": _TYPE,
        "FromImage": own["FromImage"],
        "FromImageID": own["FromImageID"],
        "FromImageDigest": own["FromImageDigest"],
        "GroupAdd": list(options.group_add) or None,
        "Config": "" if image is None else image.raw_config.decode(),
        "Manifest": "" if image is None else image.raw.decode(),
        "Container": own["Container"],
        "ContainerID": own["ContainerID"],
        "MountPoint": own["MountPoint"],
        "ProcessLabel": "",
        "MountLabel": "",
        "ImageAnnotations": own["ImageAnnotations"] or None,
        "ImageCreatedBy": own["ImageCreatedBy"],
        "OCIv1": oci,
        "Docker": docker,
        "DefaultMountsFilePath": "",
        "Isolation": options.isolation or "native",
        "NamespaceOptions": _namespaces(options),
        "Capabilities": _capabilities(options),
        "ConfigureNetwork": "NetworkDisabled" if options.network == "none" else "NetworkDefault",
        "CNIPluginPath": "",
        "CNIConfigDir": "",
        "IDMappingOptions": _id_mapping(options),
        "History": own["History"],
        "Devices": list(options.devices),
        "DeviceSpecs": None,
        "CDIConfigDir": "",
    }
    shown = {name: value.shown if isinstance(value, Struct) else value for name, value in values.items()}
    typed = {
        "GroupAdd": _list(values["GroupAdd"]),
        "ImageAnnotations": _map(own["ImageAnnotations"]),
        "DeviceSpecs": NilList(),
        "NamespaceOptions": _structs(values["NamespaceOptions"]),
        "IDMappingOptions": _structs(values["IDMappingOptions"]),
        "History": _entries(own["History"] or []),
    }
    return Struct({**values, **typed}, shown)


def _structs(value: Any) -> Any:
    """Mappings of a fixed set of keys as the structures that Go makes of them, with all that is in them."""
    if isinstance(value, Mapping):
        return Struct({name[0].upper() + name[1:]: _structs(item) for name, item in value.items()}, value)
    if isinstance(value, list):
        return [_structs(item) for item in value]
    return NilList() if value is None else value


def _capabilities(options: RunOptions) -> list[str]:
    from builda.builder.run.security import capabilities

    return list(capabilities(options))


def _id_mapping(options: RunOptions) -> Mapping[str, Any]:
    """The maps that are said; those that are only to be found when a command runs (of a name, a path) are empty."""
    from builda.builder.run.usernamespace import Auto, parse_auto, parse_map

    uids, gids = options.userns_uid_map, options.userns_gid_map
    if uids and not options.userns_gid_map_group:
        gids = gids or uids
    mapped = bool(uids or options.userns_uid_map_user or options.userns_gid_map_group)
    is_auto = (options.userns or "").partition(":")[0] == "auto"
    auto = parse_auto(options.userns or "") if is_auto else Auto()
    return {
        "HostUIDMapping": not mapped and not is_auto,
        "HostGIDMapping": not mapped and not is_auto,
        "UIDMap": _rows(parse_map(uids, "--userns-uid-map")) if uids else [],
        "GIDMap": _rows(parse_map(gids, "--userns-gid-map")) if gids else [],
        "AutoUserNs": is_auto,
        "AutoUserNsOpts": {
            "Size": auto.size or 0,
            "InitialSize": 0,
            "PasswdFile": "",
            "GroupFile": "",
            "AdditionalUIDMappings": _rows(auto.uids) or None,
            "AdditionalGIDMappings": _rows(auto.gids) or None,
        },
    }


def _rows(rows: tuple[tuple[int, int, int], ...]) -> list[Mapping[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in rows]


def _user_namespace(options: RunOptions) -> str:
    from builda.builder.run.usernamespace import is_asked_for

    if not is_asked_for(options):
        return "host"
    said = options.userns or ""
    path = said.removeprefix("ns:")
    return f"ns:{path}" if path.startswith("/") else "private"


def _namespaces(options: RunOptions) -> list[Mapping[str, Any]]:
    said = {
        "cgroup": options.cgroupns,
        "ipc": options.ipc,
        "mount": None,
        "network": options.network,
        "pid": options.pid,
        "user": _user_namespace(options),
        "uts": options.uts,
    }
    return [{"Name": name, "Host": value == "host", "Path": _path(value)} for name, value in said.items()]


def _path(value: str | None) -> str:
    if value is None or value in ("host", "private", "none"):
        return ""
    return value.removeprefix("ns:")


def _entries(history: list[Mapping[str, Any]]) -> list[Struct]:
    return [
        Struct(
            {
                "Created": _time(entry.get("created")),
                "CreatedBy": entry.get("created_by", ""),
                "Author": entry.get("author", ""),
                "Comment": entry.get("comment", ""),
                "EmptyLayer": entry.get("empty_layer", False),
            },
            entry,
        )
        for entry in history
    ]


def _time(text: str | None) -> Time | Nil:
    return Time(text) if text else Nil()


def _map(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return value or NilMap()


def _list(value: list[Any] | None) -> list[Any]:
    return NilList() if value is None else value


def _set(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return Set(value) if value else NilSet()


def _oci(config: ImageConfig) -> Struct:
    """The OCI image configuration, without what only Docker's has."""
    shown = {key: value for key, value in config_to_json(config).items() if key != "comment"}
    inner = {key: value for key, value in shown["config"].items() if key in _OCI_INNER}
    shown["config"] = inner
    fields = {
        "User": inner.get("User", ""),
        "ExposedPorts": _set(inner.get("ExposedPorts")),
        "Env": _list(inner.get("Env")),
        "Entrypoint": _list(inner.get("Entrypoint")),
        "Cmd": _list(inner.get("Cmd")),
        "Volumes": _set(inner.get("Volumes")),
        "WorkingDir": inner.get("WorkingDir", ""),
        "Labels": _map(inner.get("Labels")),
        "StopSignal": inner.get("StopSignal", ""),
        "ArgsEscaped": inner.get("ArgsEscaped", False),
    }
    return Struct({"Created": _time(shown.get("created")), **_common(shown), "Config": Struct(fields, inner)}, shown)


def _common(shown: Mapping[str, Any]) -> dict[str, Any]:
    rootfs = shown["rootfs"]
    return {
        "Author": shown.get("author", ""),
        "Architecture": shown["architecture"],
        "Variant": shown.get("variant", ""),
        "OS": shown["os"],
        "OSVersion": shown.get("os.version", ""),
        "OSFeatures": _list(shown.get("os.features")),
        "RootFS": Struct({"Type": rootfs["type"], "DiffIDs": _list(rootfs["diff_ids"])}, rootfs),
        "History": _entries(shown.get("history", [])),
    }


def _docker(config: ImageConfig) -> Struct:
    """The same as Docker's image, every field of its configuration spelled out."""
    whole = config_to_json(config)
    inner = {**every_field(whole["config"]), "OnBuild": whole["config"].get("OnBuild", [])}
    created = whole.get("created", _NEVER)
    shown: dict[str, Any] = {"created": created}
    shown |= {"comment": config.comment} if config.comment else {}
    shown |= {"container_config": inner, "config": inner}
    shown |= {key: value for key, value in whole.items() if key not in ("config", "created", "comment")}
    struct = Struct(_docker_fields(inner), inner)
    extra = config.extra
    fields = {
        "ID": extra.get("id", ""),
        "Parent": extra.get("parent", ""),
        "Comment": config.comment,
        "Created": Time(created),
        "Container": extra.get("container", ""),
        "ContainerConfig": struct,
        "DockerVersion": extra.get("docker_version", ""),
        "Config": struct,
        "Size": extra.get("Size", 0),
        **_common(whole),
    }
    return Struct(fields, shown)


def _docker_fields(inner: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Docker's configuration for templates, in Go's order."""
    timeout = inner.get("StopTimeout")
    fields: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": None,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": None,
        "Cmd": None,
        "Healthcheck": None,
        "ArgsEscaped": False,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "NetworkDisabled": False,
        "MacAddress": "",
        "OnBuild": None,
        "Labels": None,
        "StopSignal": "",
        "StopTimeout": timeout,
        "Shell": None,
        **inner,
    }
    for name in ("ExposedPorts", "Volumes"):
        fields[name] = _set(fields[name])
    for name in ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell"):
        fields[name] = _list(fields[name])
    fields["Labels"] = _map(fields["Labels"])
    fields["StopTimeout"] = Nil() if timeout is None else timeout
    fields["Healthcheck"] = _health(fields["Healthcheck"])
    return fields


def _health(check: Mapping[str, Any] | None) -> Struct | Nil:
    if check is None:
        return Nil()
    times = {name: Nanoseconds(check.get(name, 0)) for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")}
    return Struct({"Test": _list(check.get("Test")), **times, "Retries": check.get("Retries", 0)}, check)


def manifest_of(image: Image) -> Any:
    """The manifest list itself, for `--type manifest`."""
    return decode_any(image.raw, "manifest list")
