"""`build --on`: the command line as a request for a pod.

`request_of` decides what is sent; every option of `build` is in one of its tables.
"""

from __future__ import annotations

import os

from builda.cli.building.clusteroptions import OF_JOB
from builda.cli.core.options import Option, Row
from builda.errors import InvalidValue, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

SENT = frozenset(
    """target skip_unused_stages from_ label annotation unsetenv unsetlabel unsetannotation identity_label
    omit_history format layers no_cache cache_ttl cache_since cache_from cache_to explain_cache rm force_rm
    squash jobs pull quiet allow compress disable_content_trust inherit_labels inherit_annotations
    force_compression log_rusage compression_format compression_level disable_compression timestamp
    source_date_epoch rewrite_timestamp created_annotation pull_always pull_never tls_verify retry retry_delay
    platform os arch variant network pid ipc uts cgroupns userns userns_uid_map userns_gid_map
    userns_uid_map_user userns_gid_map_group group_add memory memory_swap shm_size ulimit cgroup_parent
    cpu_period cpu_quota cpu_shares cpuset_cpus cpuset_mems add_host dns dns_option dns_search http_proxy
    runtime runtime_flag no_hostname no_hosts cap_add cap_drop isolation scan sbom provenance attest
    sbom_image_output sbom_image_purl_output""".split()
)
"""Options that mean in the pod what they mean here."""
HERE = frozenset(
    """file ignorefile tag build_arg build_arg_file build_context env output iidfile iidfile_raw progress secret ssh
    logfile authfile creds scan_ignore source_policy_file locked matrix mount cache_mounts_from
    cache_mounts_to on context_via detach attach""".split()
) | {row.name for row in OF_JOB}
"""Options that are dealt with on this machine, or whose files are sent."""
RETURNED = {
    "report": ".html",
    "trace": "",
    "metadata_file": ".json",
    "sbom_output": ".json",
    "sbom_purl_output": ".json",
}
"""Options whose files are made in the pod and written here, and the ends of their names there."""
NO_VALUES: Mapping[str, Any] = {"jobs": 0, "platform": (), "layers": True, "iidfile": None, "iidfile_raw": None}
"""The values of options that the view of a build looks at, when none is given."""
HOST = "it is of the machine that builds, which is a pod; --pod-template can give that volumes and devices"
REFUSED: Mapping[str, str] = {
    "all_platforms": "name the platforms with --platform",
    "manifest": "the list would be in the pod's store; push the images, and join them with builda manifest",
    "interactive_on_failure": "the pod has no terminal; builda debug on this machine",
    "keep_failed": "the container would be in the pod's store, which ends with it; build here to look into it",
    "stdin": "the pod has no standard input",
    "logsplit": "--logfile has all",
    "save_stages": "the stages would be in the pod's store, which ends with it; --cache-to keeps their steps",
    "stage_labels": "it belongs to --save-stages",
    "layer_label": "it belongs to --save-stages",
    "lock": "write the lock file here, with --check left out and --on too; --locked goes with --on",
    "cert_dir": "put the certificates into the builder image, or mount them with --pod-template",
    "preprocess": "preprocess the file here: builda preprocess FILE | builda build --on … -f - .",
    "cpp_flag": "preprocess the file here: builda preprocess FILE | builda build --on … -f - .",
    "device": HOST,
    "volume": HOST,
    "signature_policy": "the pod obeys the policy.json of its image; put it there with its keys, or mount it with "
    "--pod-template",
    "security_opt": "it may name files of the machine that builds; --mode and --pod-template say what the pod may do",
}
"""Options that a build in a cluster does not have, and why."""
_FILES = ("scan_ignore", "source_policy_file", "locked")


class Request(NamedTuple):
    """What a pod is asked to do, and the files that it is given for it, by their names in the Secret."""

    words: tuple[str, ...]
    given: Mapping[str, bytes]
    names: tuple[str, ...]
    """What the image will be called."""
    claims: Mapping[str, str] = {}
    """Volume claims that cache mounts are kept in, and where the pod has them."""


def request_of(
    rows: Sequence[Row], values: Mapping[str, Any], args: Mapping[str, str], environ: Mapping[str, str]
) -> Request:
    """The request for the options in `values`, with the build arguments `args`. Unsupported for what cannot be had."""
    from builda.cluster.objects import GIVEN

    options = [row for row in rows if isinstance(row, Option) and row.refusal is None]
    for row in options:
        if row.name in REFUSED and values.get(row.name, row.default) != row.default:
            raise Unsupported(f"{row.long} cannot be used with --on: {REFUSED[row.name]}")
    words = [word for row in options if row.name in SENT for word in words_of(row, values.get(row.name, row.default))]
    given: dict[str, bytes] = {}

    def file(option: str, name: str, data: bytes, before: str = "") -> None:
        given[name] = data
        words.append(f"--{option}={before}{GIVEN}/{name}")

    words += [f"--build-arg={name}={value}" for name, value in args.items()]
    words += [f"--env={name}={value}" for name, value in named(values["env"], environ)]
    words += _mounts(values["mount"])
    names = tuple(_name(tag) for tag in values["tag"])
    words += [f"--tag={name}" for name in names]
    words += [f"--output=type=registry,name={name}" for name in names if not name.startswith("docker://")]
    words += [f"--output={item}" for item in _outputs(values["output"])]
    if values["iidfile"] is not None or values["iidfile_raw"] is not None:
        words.append(f"--iidfile={os.devnull}")  # so that the pod does not print the ID
    words += returned(values)
    for name in _FILES:
        if values[name]:
            from builda.inputfile import read_input

            option = f"--{name.replace('_', '-')}"
            file(option[2:], name.replace("_", "-"), read_input(values[name], f"file of {option}"))
        elif values[name] == "":
            raise Unsupported("--locked without a file cannot be used with --on", hint="name it: --locked=builda.lock")
    for number, (name, data) in enumerate(_secrets(values["secret"], environ)):
        file("secret", f"secret-{number}", data, f"id={name},src=")
    for number, (name, data) in enumerate(_keys(values["ssh"])):
        file("ssh", f"key-{number}", data, f"{name}=")
    claims = dict[str, str]()
    for option in ("cache_mounts_from", "cache_mounts_to"):
        words += [f"--{option.replace('_', '-')}={_mounts_place(item, option, claims)}" for item in values[option]]
    return Request(tuple(words), given, names, claims)


def returned(values: Mapping[str, Any]) -> list[str]:
    """The options that name files for the client, as the pod has them."""
    from builda.cluster.objects import OUT

    return [
        f"--{name.replace('_', '-')}={OUT}/{name}{ending or os.path.splitext(values[name])[1]}"
        for name, ending in RETURNED.items()
        if values.get(name)
    ]


def words_of(row: Option, value: Any) -> list[str]:
    """An option as it is written on a command line; nothing for its default."""
    if value == row.default:
        return []
    match row.kind:
        case "switch":
            return [f"{row.long}={'true' if value else 'false'}"]
        case "duration":
            return [f"{row.long}={value}ns"]
        case "many":
            return [f"{row.long}={one}" for one in value]
        case "list":
            return [f"{row.long}={quoted(one)}" for one in value]
        case _:
            return [f"{row.long}={value}"]


def quoted(text: str) -> str:
    """One value of an option that splits its values at commas."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


def named(items: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names and values of `NAME=VALUE` and `NAME` items; a name alone means the caller's variable, if it is set."""
    for item in items:
        name, equals, value = item.partition("=")
        if equals:
            yield name, value
        elif name in environ:
            yield name, environ[name]


def _mounts(items: Sequence[str]) -> list[str]:
    for item in items:
        if "type=cache" not in item and "type=tmpfs" not in item:
            raise Unsupported(f"--mount cannot be used with --on but for caches and tmpfs: {item}", hint=HOST)
    return [f"--mount={item}" for item in items]


def _mounts_place(item: str, option: str, claims: dict[str, str]) -> str:
    """A place for cache mounts as the pod knows it; a claim is added to `claims`."""
    from builda.cluster.objects import CLAIMS

    if item.startswith("type=local"):
        raise Unsupported(
            f"directory of this machine cannot be used with --on: {item}", hint="name a repository or claim"
        )
    if not item.startswith("type=claim"):
        return item
    fields = dict(part.partition("=")[::2] for part in item.split(","))
    if set(fields) != {"type", "name"} or not fields["name"]:
        raise InvalidValue(f"--{option.replace('_', '-')} names no claim: {item}", hint="write type=claim,name=NAME")
    place = claims.setdefault(fields["name"], f"{CLAIMS}/{len(claims)}")
    return f"type=local,dir={place}"


def _name(tag: str) -> str:
    """The name of an image in a registry; Unsupported for one that would be in the pod's store only."""
    from builda.oci.reference import parse_short
    from builda.transfer.locate import parse_location

    location = parse_location(tag)
    if location is not None and location.in_registry:
        return tag
    short = parse_short(tag) if location is None else None
    if short is None or short.registry is None or short.registry == "localhost":
        raise Unsupported(
            f"image of a build in a cluster is pushed to a registry, which the name lacks: {tag}",
            hint="write HOST/NAME; builda pull brings it here",
        )
    return tag


def _outputs(items: Sequence[str]) -> Sequence[str]:
    from builda.cli.building import outputs

    for output, item in zip(outputs.parse(tuple(items)), items, strict=True):
        if not output.push:
            raise Unsupported(
                f"--output cannot be used with --on but for registries: {item}", hint="write type=registry,name=NAME"
            )
    return items


def _secrets(items: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    from builda.cli.building.secrets import secrets_of

    yield from secrets_of(tuple(items), environ).items()


def _keys(items: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    from builda.inputfile import read_input

    for item in items:
        name, _, value = item.partition("=")
        path = os.path.expanduser(value)
        if not value or "," in value or not os.path.isfile(path):
            raise Unsupported(
                f"agent cannot be used with --on, only a key file can: --ssh {item}", hint=f"write --ssh {name}=KEYFILE"
            )
        yield name, read_input(path, f"key of --ssh {name}")
