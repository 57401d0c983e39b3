"""Options that several verbs share, as tables of rows, and the values that they make."""

from __future__ import annotations

from collections.abc import Mapping

from builda.cli.core.options import Params, duration, listed, many, number, parse_size, refused, size, switch, text
from builda.cli.core.settings import environment
from builda.errors import InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from builda.builder.imageoptions import ImageFormat, PullPolicy, PushOptions, RegistryAccess, Signing
    from builda.cli.core.settings import Settings
    from builda.cli.core.verbsession import Session
    from builda.oci.descriptor import Platform
    from builda.plan import RunOptions

Values: TypeAlias = "dict[str, Any]"

_ENCRYPTION = "builda neither encrypts nor decrypts layers"
_PARAMETERS = "builda signs with keys in files and with GPG only: --sign-by-sigstore-private-key, --sign-by"
_SBOM = "builda reads packages itself and runs no scanner; run one on the directory that `builda mount` prints"
_CDI = "CDI devices are not supported; name device nodes with --device"
_CW = "confidential workloads are not supported"

REGISTRY: Params = (
    text("--authfile", metavar="FILE", help="Take credentials from this file.  [env: REGISTRY_AUTH_FILE]"),
    text("--creds", metavar="USER[:PASSWORD]", help="Use these credentials."),
    text("--cert-dir", metavar="DIR", help="Use the certificates in this directory."),
    switch("--tls-verify", default=None, is_on=True, help="Require HTTPS with a valid certificate (the default)."),
)
RETRY: Params = (
    number("--retry", help="Try again this often after a network failure.  [default: 3]"),
    duration("--retry-delay", help="Wait this long between tries (default: longer each time)."),
)
DECRYPTION: Params = (refused("--decryption-key", reason=_ENCRYPTION),)
ENCRYPTION: Params = (
    refused("--encryption-key", reason=_ENCRYPTION),
    refused("--encrypt-layer", reason=_ENCRYPTION),
)
SIGNING_TEXTS: Params = (
    text("--sign-by", metavar="FINGERPRINT", help="Sign the image with this key of the GPG keyring."),
    text("--sign-by-sigstore-private-key", metavar="FILE", help="Sign the image with this key, as cosign does."),
    text("--sign-passphrase-file", metavar="FILE", help="The first line of this file is the key's passphrase."),
    text("--sign-identity", metavar="NAME", help="The image name in the signatures (default: the destination's)."),
)
SIGNING: Params = (
    *SIGNING_TEXTS,
    refused("--sign-by-sigstore", reason=_PARAMETERS),
    refused("--sign-by-sq-fingerprint", reason=_PARAMETERS),
)
HIDDEN: Params = (
    refused("--blob-cache", reason="the store keeps every blob it has seen"),
    text("--signature-policy", metavar="FILE", hidden=True, help="Use this policy.json."),
)
SIGNATURES: Params = (switch("--remove-signatures", hidden=True, help="As is always done: the store has none."),)
COPIED_SIGNATURES: Params = (switch("--remove-signatures", help="Do not copy the signatures of the source."),)
_OF_PLATFORM: Params = (
    text("--os", help="Take the image for this operating system."),
    text("--arch", "--override-arch", help="Take the image for this architecture."),
    text("--variant", help="Take the image for this variant of the architecture."),
)
PLATFORM: Params = (
    listed(
        "--platform", metavar="OS/ARCH[/VARIANT]", help="Take the image for this platform; `local` is this machine's."
    ),
    *_OF_PLATFORM,
)
PLATFORMS: Params = (
    listed(
        "--platform",
        metavar="OS/ARCH[/VARIANT],…",
        help="Build for these platforms, each an image; `local` is this machine's.",
    ),
    *_OF_PLATFORM,
)
"""Those of a build, which can be for several."""
PULL_FLAGS: Params = (
    switch("--pull-always", hidden=True, help="As --pull=always."),
    switch("--pull-never", hidden=True, help="As --pull=never."),
)
COMPRESSION: Params = (
    text("--compression-format", metavar="FORMAT", help="Compress layers with gzip or zstd."),
    number("--compression-level", help="gzip 1-9, zstd 1-20."),
    switch("--disable-compression", "-D", default=None, help="Leave layers uncompressed."),
)
NAMESPACES: Params = (
    text(
        "--network",
        "--net",
        metavar="MODE",
        help="private (default for root), host, none, or ns:PATH of a network namespace.",
    ),
    text("--pid", metavar="MODE", help="private, host, or the path of a namespace."),
    text("--ipc", metavar="MODE", help="private, host, or the path of a namespace."),
    text("--uts", metavar="MODE", help="private, host, or the path of a namespace."),
    text("--cgroupns", metavar="MODE", help="private or host."),
)
USERNS: Params = (
    text(
        "--userns",
        metavar="MODE",
        help="The user namespace of commands: host (default), private, auto[:size=N,…], or the path of one.",
    ),
    listed("--userns-uid-map", metavar="CONTAINER:HOST:SIZE,…", help="Map these uids in a private user namespace."),
    listed("--userns-gid-map", metavar="CONTAINER:HOST:SIZE,…", help="Map these gids in it.  [default: as the uids]"),
    text("--userns-uid-map-user", metavar="NAME", help="Map the uids that /etc/subuid gives to NAME."),
    text("--userns-gid-map-group", metavar="NAME", help="Map the gids that /etc/subgid gives to NAME."),
    listed("--group-add", metavar="GROUP,…", help="Give commands these groups too."),
)
RESOURCES: Params = (
    size("--memory", "-m", help="Limit memory."),
    text("--memory-swap", metavar="SIZE", help="Limit memory and swap together; -1 is no limit."),
    size("--shm-size", help="The size of /dev/shm.  [default: 64m]"),
    listed("--ulimit", metavar="TYPE=SOFT[:HARD],…", help="Set resource limits."),
    text("--cgroup-parent", metavar="PATH", help="The cgroup under which commands run."),
    number("--cpu-period", help="The CFS period, in microseconds."),
    number("--cpu-quota", help="The CFS quota, in microseconds."),
    number("--cpu-shares", "-c", help="The relative weight of CPU time."),
    text("--cpuset-cpus", metavar="LIST", help="The CPUs that commands may use."),
    text("--cpuset-mems", metavar="LIST", help="The memory nodes that commands may use."),
)
HOST: Params = (
    listed("--add-host", metavar="NAME:IP,…", help="Add a line to /etc/hosts; the IP may be host-gateway."),
    listed("--dns", metavar="IP,…", help="Name servers; none leaves /etc/resolv.conf alone."),
    listed("--dns-option", metavar="OPTION,…", help="Options of resolv.conf."),
    listed("--dns-search", metavar="DOMAIN,…", help="Search domains of resolv.conf."),
    switch("--http-proxy", default=None, is_on=True, help="Pass the proxy variables on (the default)."),
)
PROCESS: Params = (
    listed("--cap-add", metavar="CAP,…", help="Grant capabilities."),
    listed("--cap-drop", metavar="CAP,…", help="Take capabilities away; this beats --cap-add."),
    many("--device", metavar="SRC[:DST[:rwm]]", help="Give access to a device."),
    text(
        "--isolation",
        metavar="KIND",
        help="native (default), oci, rootless, chroot or traced.  [env: BUILDA_ISOLATION, BUILDAH_ISOLATION]",
    ),
    many("--volume", "-v", metavar="SRC:DST[:OPTIONS]", help="Bind-mount a directory or file of the host."),
    refused("--cdi-config-dir", reason=_CDI),
)
SECURITY: Params = (
    many(
        "--security-opt", metavar="OPTION", help="seccomp=…, no-new-privileges, mask=…, unmask=…, apparmor=…, label=…"
    ),
)
TIME: Params = (
    number("--timestamp", metavar="SECONDS", help="Set every time in the image to this."),
    number(
        "--source-date-epoch",
        metavar="SECONDS",
        help="Set the times of the configuration to this; no file of a new layer is younger.  [env: SOURCE_DATE_EPOCH]",
    ),
    switch(
        "--rewrite-timestamp",
        default=None,
        help="Set files of new layers that are younger than --source-date-epoch back to it.",
    ),
    switch(
        "--created-annotation", default=True, help="Write the annotation org.opencontainers.image.created (default)."
    ),
)
CONFIDENTIAL: Params = (refused("--cw", reason=_CW),)
SBOM: Params = (
    text(
        "--sbom",
        metavar="true|FORMAT,…|PRESET",
        help="Attach an SBOM to the image: true is spdx-json; cyclonedx-json. A preset of Buildah's (syft, syft-spdx, "
        "trivy, trivy-spdx) says the format of the files below instead.",
    ),
    text("--sbom-output", metavar="FILE", help="Write an SBOM of the image into this file."),
    text("--sbom-purl-output", metavar="FILE", help="Write a list of package URLs into this file."),
    text("--sbom-image-output", metavar="PATH", help="Put an SBOM into the image, at this path."),
    text("--sbom-image-purl-output", metavar="PATH", help="Put a list of package URLs into the image, at this path."),
    text(
        "--provenance",
        metavar="true|mode=MODE,…",
        help="Attach to the image how it was made: true is mode=min; mode=max also names arguments and steps.",
    ),
    many(
        "--attest",
        metavar="type=TYPE,…",
        help="Attach this: type=sbom or type=provenance, with what --sbom and --provenance take.",
    ),
    refused("--sbom-scanner-image", reason=_SBOM),
    refused("--sbom-scanner-command", reason=_SBOM),
    refused("--sbom-merge-strategy", reason="there is one SBOM, of the image, and nothing to merge it with"),
)


def registry_access(values: Values, environ: Mapping[str, str]) -> RegistryAccess:
    """Take the options REGISTRY, RETRY and HIDDEN out of `values`, as options of reaching registries.

    Raises NotFound or InvalidValue for files that they name and that are missing or malformed.
    """
    from builda.builder.imageoptions import RegistryAccess
    from builda.inputfile import rereadable

    delay = values.pop("retry_delay", None)
    authfile = values.pop("authfile", None) or environment(environ, "BUILDA_AUTHFILE")
    policy = values.pop("signature_policy", None)
    access = RegistryAccess(
        authfile=authfile and rereadable(authfile, "credential file"),
        creds=_with_password(values.pop("creds", None)),
        anonymous=values.pop("no_creds", False),
        cert_dir=values.pop("cert_dir", None),
        tls_verify=values.pop("tls_verify", None),
        retry=values.pop("retry", None),
        retry_delay=None if delay is None else delay / 10**9,
        policy=policy and rereadable(policy, "policy.json"),
        signing=signing(values),
    )
    if access.authfile or access.cert_dir or access.policy:
        _check_files(access, environ)
    return access


def signing(values: Values) -> Signing | None:
    """The keys that the options SIGNING in `values` (which they leave) name; None without one."""
    names = ("sign_by", "sign_by_sigstore_private_key", "sign_passphrase_file", "sign_identity")
    fingerprint, key, passphrase_file, identity = (values.pop(name, None) for name in names)
    if fingerprint is None and key is None:
        for name, value in (("--sign-passphrase-file", passphrase_file), ("--sign-identity", identity)):
            if value is not None:
                raise InvalidValue(f"{name} without a key", hint="--sign-by or --sign-by-sigstore-private-key names it")
        return None
    from builda.builder.imageoptions import Signing

    return Signing(fingerprint=fingerprint, sigstore_key=key, passphrase_file=passphrase_file, identity=identity)


def _check_files(access: RegistryAccess, environ: Mapping[str, str]) -> None:
    """Read the files that were named, whether or not a registry will be asked: a typing error shows at once."""
    import os
    from pathlib import Path

    from builda.places import Places
    from builda.registry import certificates, keyring
    from builda.trust import policy

    places = Places(environ, os.geteuid())
    if access.authfile is not None:
        keyring.check_file(Path(access.authfile))
    if access.cert_dir is not None:
        certificates.Certificates(places, Path(access.cert_dir)).check()
    if access.policy is not None:
        policy.Policy.load(places, Path(access.policy))


def _with_password(creds: str | None) -> str | None:
    """`creds` with the password asked for when it is missing, on a terminal; there is no prompt without one."""
    if creds is None or ":" in creds:
        return creds
    import sys

    if not sys.stdin.isatty():
        raise InvalidValue("--creds has no password", hint="write --creds USER:PASSWORD, or use builda login")
    from builda.cli.core.asking import ask

    return f"{creds}:{ask('Password', hidden=True, err=True)}"


def platform(values: Values) -> Platform | None:
    """The platform that the options PLATFORM in `values` (which they leave) name; None for this machine's."""
    named: tuple[str, ...] = values.pop("platform", ())
    parts = [values.pop(key, None) for key in ("os", "arch", "variant")]
    if named and any(parts):
        raise InvalidValue("--platform cannot be used with --os, --arch or --variant")
    if len(named) > 1:
        raise InvalidValue(f"only one platform can be worked on here: {','.join(named)}")
    if not named and not any(parts):
        return None
    return _platform(named[0] if named else None, *parts)


def platform_here(values: dict[str, Any]) -> Platform:
    """The platform that --platform or its parts name; without them that of this machine."""
    from builda.builder.image.pull import machine_platform

    return platform(values) or machine_platform()


def platforms(values: Values) -> tuple[Platform | None, ...]:
    """Take the options PLATFORM out of `values`: each platform once, or (None,) for this machine's."""
    named: tuple[str, ...] = values.get("platform", ())
    if len(named) < 2:
        return (platform(values),)
    return tuple(dict.fromkeys(platform({**values, "platform": (name,)}) for name in _popped(values, named)))


def _popped(values: Values, named: tuple[str, ...]) -> tuple[str, ...]:
    parts = [values.pop(key, None) for key in ("os", "arch", "variant")]
    values.pop("platform")
    if any(parts):
        raise InvalidValue("--platform cannot be used with --os, --arch or --variant")
    return named


def _platform(named: str | None, system: str | None, architecture: str | None, variant: str | None) -> Platform | None:
    import os

    from builda.oci.descriptor import Platform
    from builda.values import replace

    if named is not None:
        return None if named == "local" else _known(Platform.parse(named))
    here = Platform.of_machine(os.uname().machine)
    if architecture is None:
        return replace(here, os=system or here.os, variant=variant or here.variant)
    return _known(Platform.parse("/".join(part for part in (system or here.os, architecture, variant) if part)))


def _known(platform: Platform) -> Platform:
    if not platform.is_known:
        raise InvalidValue(f"unknown platform: {platform}", hint="it is written os/arch[/variant], as in linux/arm64")
    return platform


def pull_policy(values: Values, said: str | None) -> PullPolicy:
    """The pull policy `said` by --pull or --policy, or that of one of PULL_FLAGS; InvalidValue for two of them."""
    from builda.builder.imageoptions import parse_policy

    flags = [name for name in ("always", "never") if values.pop(f"pull_{name}", False)]
    if len(flags) + (bool(flags) and said is not None) > 1:
        raise InvalidValue("--pull, --pull-always and --pull-never cannot be used together", hint="write --pull=POLICY")
    return parse_policy(flags[0] if flags else said or "missing")


def annotation(item: str) -> tuple[str, str]:
    """Name and value of `NAME=VALUE`."""
    name, equals, value = item.partition("=")
    if not name or not equals:
        raise InvalidValue(f"annotation is written NAME=VALUE: {item}")
    return name, value


def image_format(said: str | None, environ: Mapping[str, str]) -> ImageFormat | None:
    """The format of `--format`, else of the environment; None when neither says one."""
    from builda.builder.imageoptions import parse_format

    text_ = said or environment(environ, "BUILDA_FORMAT", "BUILDAH_FORMAT")
    return None if text_ is None else parse_format(text_)


def configured_compression(values: Values, session: Session) -> tuple[Any, int | None]:
    """Compression and level from the options COMPRESSION, else from containers.conf; (None, None) if neither is set."""
    if not values["disable_compression"] and values["compression_format"] is None and session.is_configured:
        values["compression_format"] = session.defaults.compression
        if values["compression_level"] is None:
            values["compression_level"] = session.defaults.compression_level
    return compression(values)


def compression(values: Values) -> tuple[Any, int | None]:
    """Compression and level of the options COMPRESSION; (None, None) when they say nothing."""
    name, level = values.pop("compression_format"), values.pop("compression_level")
    if values.pop("disable_compression"):
        if name is not None:
            raise InvalidValue("--disable-compression cannot be used with --compression-format")
        return "none", None
    if name is not None:
        compression_named(name)
    if level is not None:
        top = 20 if name == "zstd" else 9
        if not 1 <= level <= top:
            raise InvalidValue(f"--compression-level of {name or 'gzip'} is 1 to {top}: {level}")
    return name or (None if level is None else "gzip"), level


def compression_named(name: str) -> Any:
    """The compression that a user calls so; Unsupported for any but gzip and zstd."""
    if name not in ("gzip", "zstd"):
        raise Unsupported(f"compression format is not supported: {name}", hint="it is gzip or zstd")
    return name


def push_options(values: Values, environ: Mapping[str, str], *, alone: bool = False) -> PushOptions:
    """Take --format, COMPRESSION, --force-compression and options of registries out of `values`, for a push.

    `alone`: without the images of a list. Raises Unsupported for Docker's schema 1.
    """
    from builda.builder.imageoptions import PushOptions, parse_format

    said = values.pop("format")
    if said == "v2s1":
        raise Unsupported("Docker schema 1 manifests are not supported", hint="--format is oci or v2s2")
    kind, level = compression(values)
    return PushOptions(
        format=None if said is None else parse_format(said),
        compression=kind,
        compression_level=level,
        force_compression=values.pop("force_compression"),
        alone=alone,
        access=registry_access(values, environ),
    )


def epoch(said: int | None, timestamp: int | None, environ: Mapping[str, str]) -> int | None:
    """--source-date-epoch, else SOURCE_DATE_EPOCH unless --timestamp is given."""
    if said is not None and timestamp is not None:
        raise InvalidValue("--timestamp cannot be used with --source-date-epoch")
    variable = environ.get("SOURCE_DATE_EPOCH")
    if said is not None or timestamp is not None or not variable:
        return said
    try:
        return int(variable)
    except ValueError:
        raise InvalidValue(f"SOURCE_DATE_EPOCH is not a number of seconds: {variable}") from None


def adds_history(said: bool | None, environ: Mapping[str, str]) -> bool:
    """--add-history, else BUILDA_HISTORY and BUILDAH_HISTORY."""
    if said is not None:
        return said
    return (environment(environ, "BUILDA_HISTORY", "BUILDAH_HISTORY") or "").lower() in ("1", "true")


def run_options(values: Values, environ: Mapping[str, str]) -> RunOptions:
    """Take the options NAMESPACES … SECURITY out of `values`, as options of running commands."""
    from builda.api import isolation_name
    from builda.plan import RunOptions

    _check_network(values)
    renamed = {
        "device": "devices",
        "volume": "volumes",
        "ulimit": "ulimits",
        "security_opt": "security_opts",
        "add_host": "add_hosts",
        "dns_option": "dns_options",
        "runtime_flag": "runtime_flags",
    }
    taken: Values = {}
    for row in (*NAMESPACES, *USERNS, *RESOURCES, *HOST, *PROCESS, *SECURITY, *OF_RUN):
        if row.name in values:
            taken[renamed.get(row.name, row.name)] = values.pop(row.name)
    for name in ("userns_uid_map", "userns_gid_map"):
        taken[name] = ",".join(taken.get(name) or ()) or None
    asked = taken.pop("isolation", None) or environment(environ, "BUILDA_ISOLATION", "BUILDAH_ISOLATION")
    of_runtime = taken.get("runtime") or ",".join(taken.get("runtime_flags") or ())
    taken["isolation"] = isolation_name(asked, runtime=of_runtime or None)
    taken["runtime"] = taken.pop("runtime", None) or environment(environ, "BUILDA_RUNTIME", "BUILDAH_RUNTIME")
    if environment(environ, "BUILDA_NOPIVOT", "BUILDAH_NOPIVOT"):
        taken["no_pivot"] = True
    if taken.get("memory_swap") is not None:
        taken["memory_swap"] = -1 if taken["memory_swap"] == "-1" else parse_size(taken["memory_swap"])
    return RunOptions(**taken)


def check_commands(options: RunOptions) -> None:
    """Check before anything is done that commands can be run with these options; the error names the option."""
    from builda.runoptions import NO_OPTIONS

    if options != NO_OPTIONS:
        from builda.builder.run.runcheck import check

        check(options)


def with_maps(options: RunOptions, settings: Settings) -> RunOptions:
    """The options; where they say nothing of a user namespace, with the maps that the global options say."""
    from builda.plan import RunOptions

    if settings.uid_map is None:
        return options
    return options.over(RunOptions(userns_uid_map=settings.uid_map, userns_gid_map=settings.gid_map))


RUNTIME: Params = (
    text(
        "--runtime",
        metavar="PATH",
        help="The OCI runtime to run commands with; without --isolation it means oci.  "
        "[env for oci: BUILDA_RUNTIME, BUILDAH_RUNTIME]",
    ),
    listed(
        "--runtime-flag",
        metavar="FLAG,…",
        help="Global flags of the OCI runtime, without their dashes; without --isolation they mean oci.",
    ),
    switch("--no-hostname", default=None, help="Leave the image's /etc/hostname as it is."),
    switch("--no-hosts", default=None, help="Leave the image's /etc/hosts as it is."),
)
OF_RUN: Params = (
    *RUNTIME,
    text("--hostname", metavar="NAME", help="The host name inside."),
    switch("--no-pivot", default=None, help="Do without pivot_root, for roots on a ramdisk."),
    switch("--terminal", "--tty", "-t", default=None, is_on=True, help="Give the command a terminal, or none."),
)


def _check_network(values: Values) -> None:
    if values.get("network") == "none":
        for name in ("dns", "dns_option", "dns_search"):
            if values.get(name):
                raise InvalidValue(f"--{name.replace('_', '-')} cannot be used with --network=none")
    if values.get("no_hosts") and values.get("add_host"):
        raise InvalidValue("--no-hosts cannot be used with --add-host")
