"""What `inspect` shows: the keys of Buildah's JSON, and beside them the field names that its templates use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builda.cli.gofuncs import Struct
from builda.oci.config import config_to_json
from builda.runoptions import NO_OPTIONS, RunOptions

if TYPE_CHECKING:
    from builda.oci.config import History, ImageConfig
    from builda.store.store import Image, WorkingContainer

_TYPE = "buildah 0.0.1"
_OCI_INNER: Mapping[str, Any] = {
    "User": "",
    "ExposedPorts": {},
    "Env": [],
    "Entrypoint": [],
    "Cmd": [],
    "Volumes": {},
    "WorkingDir": "",
    "Labels": {},
    "StopSignal": "",
    "ArgsEscaped": False,
}


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
            "ImageAnnotations": dict(container.annotations) or None,
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
            "ImageAnnotations": dict(image.manifest.annotations) or None,
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
        "ImageAnnotations": own["ImageAnnotations"],
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
    return Struct({**values, "History": _entries(own["History"] or [])}, shown)


def _capabilities(options: RunOptions) -> list[str]:
    from builda.builder.security import capabilities

    return list(capabilities(options))


def _id_mapping(options: RunOptions) -> Mapping[str, Any]:
    """The maps that are said; those that are only to be found when a command runs (of a name, a path) are empty."""
    from builda.builder.usernamespace import Auto, parse_auto, parse_map

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
    from builda.builder.usernamespace import is_asked_for

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
                "Created": entry.get("created", ""),
                "CreatedBy": entry.get("created_by", ""),
                "Author": entry.get("author", ""),
                "Comment": entry.get("comment", ""),
                "EmptyLayer": entry.get("empty_layer", False),
            },
            entry,
        )
        for entry in history
    ]


def _oci(config: ImageConfig) -> Struct:
    """The OCI image configuration, without what only Docker's has."""
    shown = {key: value for key, value in config_to_json(config).items() if key != "comment"}
    inner = {key: value for key, value in shown["config"].items() if key in _OCI_INNER}
    shown["config"] = inner
    return Struct({**_common(shown), "Config": Struct({**_OCI_INNER, **inner}, inner)}, shown)


def _common(shown: Mapping[str, Any]) -> dict[str, Any]:
    rootfs = shown["rootfs"]
    return {
        "Created": shown.get("created", ""),
        "Author": shown.get("author", ""),
        "Architecture": shown["architecture"],
        "Variant": shown.get("variant", ""),
        "OS": shown["os"],
        "OSVersion": shown.get("os.version", ""),
        "OSFeatures": shown.get("os.features", []),
        "RootFS": Struct({"Type": rootfs["type"], "DiffIDs": rootfs["diff_ids"]}, rootfs),
        "History": _entries(shown.get("history", [])),
    }


def _docker(config: ImageConfig) -> Struct:
    """The same as Docker's image, every field of its configuration spelled out."""
    whole = config_to_json(config)
    inner = _docker_inner(whole["config"])
    shown: dict[str, Any] = {"created": whole.get("created", "0001-01-01T00:00:00Z")}
    shown |= {"comment": config.comment} if config.comment else {}
    shown |= {"container_config": inner, "config": inner}
    shown |= {key: value for key, value in whole.items() if key not in ("config", "created", "comment")}
    struct = Struct({name: [] if value is None else value for name, value in _docker_fields(inner).items()}, inner)
    fields = {
        **_common(whole),
        "ID": "",
        "Parent": whole.get("parent", ""),
        "Comment": config.comment,
        "DockerVersion": "",
        "Config": struct,
        "ContainerConfig": struct,
    }
    return Struct(fields, shown)


def _docker_inner(inner: Mapping[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = {
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
        "OnBuild": [],
        "Labels": None,
        "StopSignal": "",
        "Shell": None,
        **inner,
    }
    for key in ("ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "Shell"):  # Docker leaves them out
        if not value[key]:
            del value[key]
    return value


def _docker_fields(inner: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"ExposedPorts": {}, "ArgsEscaped": False, "StopSignal": "", "Shell": []}
    fields |= inner
    check = inner.get("Healthcheck")
    fields["Healthcheck"] = (
        None
        if check is None
        else Struct({"Interval": 0, "Timeout": 0, "StartPeriod": 0, "StartInterval": 0, "Retries": 0, **check}, check)
    )
    for key in ("Volumes", "Labels"):
        fields[key] = fields[key] or {}
    return fields


def manifest_of(image: Image) -> Any:
    """The manifest list itself, for `--type manifest`."""
    return json.loads(image.raw)
