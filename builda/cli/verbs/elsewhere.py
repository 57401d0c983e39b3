"""`build --on`: a command line becomes a request for a pod, and what the pod says becomes this command's output.

`request_of` decides what is sent; every option of `build` is in one of its tables.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager, suppress

from builda.cli.core.options import Option, Row
from builda.cli.core.output import say, write, write_file
from builda.cli.verbs.clusteroptions import OF_JOB, ClusterValues
from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session
    from builda.cli.progress.buildview import BuildView
    from builda.cli.progress.observer import Observer
    from builda.cli.verbs.contexts import BuildContext
    from builda.cluster.connection import Cluster
    from builda.cluster.frames import Frame
    from builda.cluster.objects import JobOptions
    from builda.cluster.podkinds import Kind
    from builda.events import ImageBuilt

SENT = frozenset(
    """target skip_unused_stages from_ label annotation unsetenv unsetlabel unsetannotation identity_label omit_history
    format layers no_cache cache_ttl cache_from cache_to explain_cache rm force_rm squash jobs pull quiet allow compress
    disable_content_trust inherit_labels inherit_annotations force_compression log_rusage compression_format
    compression_level disable_compression timestamp source_date_epoch rewrite_timestamp created_annotation pull_always
    pull_never tls_verify retry retry_delay platform os arch variant network pid ipc uts cgroupns userns userns_uid_map
    userns_gid_map userns_uid_map_user userns_gid_map_group group_add memory memory_swap shm_size ulimit cgroup_parent
    cpu_period cpu_quota cpu_shares cpuset_cpus cpuset_mems add_host dns dns_option dns_search http_proxy runtime
    runtime_flag no_hostname no_hosts cap_add cap_drop isolation scan sbom provenance attest sbom_image_output
    sbom_image_purl_output""".split()
)
"""Options that mean in the pod what they mean here."""
HERE = frozenset(
    """file ignorefile tag build_arg build_arg_file build_context env output iidfile iidfile_raw progress secret ssh
    logfile authfile creds scan_ignore source_policy_file signature_policy locked mount on context_via detach
    attach""".split()
) | {row.name for row in OF_JOB}
"""Options that are dealt with on this machine, or whose files are sent."""
HOST = "it is of the machine that builds, which is a pod; --pod-template can give that volumes and devices"
REFUSED: Mapping[str, str] = {
    "all_platforms": "name the platforms with --platform",
    "metadata_file": "the digest is in the event image_built of --events, and --iidfile has the ID",
    "report": "layers are not on this machine; run it in the pod, or build here",
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
    "security_opt": "it may name files of the machine that builds; --mode and --pod-template say what the pod may do",
    "sbom_output": "builda image sbom writes one of the image in the registry",
    "sbom_purl_output": "builda image sbom writes one of the image in the registry",
}
"""Options that a build in a cluster does not have, and why."""
_NO_VALUES: Mapping[str, Any] = {"jobs": 0, "platform": (), "layers": True, "iidfile": None, "iidfile_raw": None}
_SENT_VARIABLES = ("BUILDA_FORMAT", "BUILDAH_FORMAT", "BUILDAH_LAYERS")
_FILES = ("scan_ignore", "source_policy_file", "locked")


class Request(NamedTuple):
    """What a pod is asked to do, and the files that it is given for it, by their names in the Secret."""

    words: tuple[str, ...]
    given: Mapping[str, bytes]
    names: tuple[str, ...]
    """What the image will be called."""


def request_of(
    rows: Sequence[Row], values: Mapping[str, Any], args: Mapping[str, str], environ: Mapping[str, str]
) -> Request:
    """The request for the options in `values`, with the build arguments `args`. Unsupported for what cannot be had."""
    from builda.cluster.objects import GIVEN

    options = [row for row in rows if isinstance(row, Option) and row.refusal is None]
    for row in options:
        if row.name in REFUSED and values.get(row.name, row.default) != row.default:
            raise Unsupported(f"{row.long} cannot be used with --on: {REFUSED[row.name]}")
    words = [word for row in options if row.name in SENT for word in _words(row, values.get(row.name, row.default))]
    given: dict[str, bytes] = {}

    def file(option: str, name: str, data: bytes, before: str = "") -> None:
        given[name] = data
        words.append(f"--{option}={before}{GIVEN}/{name}")

    words += [f"--build-arg={name}={value}" for name, value in args.items()]
    words += [f"--env={name}={value}" for name, value in _named(values["env"], environ)]
    words += _mounts(values["mount"])
    names = tuple(_name(tag) for tag in values["tag"])
    words += [f"--tag={name}" for name in names]
    words += [f"--output=type=registry,name={name}" for name in names if not name.startswith("docker://")]
    words += [f"--output={item}" for item in _outputs(values["output"])]
    if values["iidfile"] is not None or values["iidfile_raw"] is not None:
        words.append(f"--iidfile={os.devnull}")  # so that the pod does not print the ID
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
    return Request(tuple(words), given, names)


def _words(row: Option, value: Any) -> list[str]:
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
            return [f"{row.long}={_csv(one)}" for one in value]
        case _:
            return [f"{row.long}={value}"]


def _csv(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


def _named(items: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
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
    from builda.cli.verbs import outputs

    for output, item in zip(outputs.parse(tuple(items)), items, strict=True):
        if not output.push:
            raise Unsupported(
                f"--output cannot be used with --on but for registries: {item}", hint="write type=registry,name=NAME"
            )
    return items


def _secrets(items: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    from builda.cli.verbs.secrets import secrets_of

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


class Prepared(NamedTuple):
    """The files that pods are given, the rest of what they are asked, and what texts of theirs mean here."""

    given: Mapping[str, bytes]
    asked: Mapping[str, Any]
    local: Mapping[str, str]
    access: RegistryAccess


def prepared_for(
    session: Session,
    context: str | None,
    request: Request,
    values: dict[str, Any],
    said: ClusterValues,
    stack: ExitStack,
    *,
    live: bool,
) -> Prepared:
    """Send the contexts, and put together what the pod is given."""
    from builda.cli.core import shared_options
    from builda.cli.verbs.contexts import is_fetched, open_context
    from builda.cluster.objects import WORK

    access = shared_options.registry_access(dict(values), session.environ)
    given, local = dict(request.given), dict[str, str]()
    asked: dict[str, Any] = {"version": 1, "words": [], "live": live, "contexts": []}
    asked["environ"] = {name: session.environ[name] for name in _SENT_VARIABLES if name in session.environ}
    place = _place(said, values, request)
    if is_fetched(context) and context != "-":
        _check_fetched(values)
        asked["where"] = context
    else:
        opened = open_context(session.builder, context, values["file"], values["ignorefile"], access, stack)
        _add_files(opened, given, asked)
        asked["contexts"].append(_send(session, opened.directory, opened.ignore_file, place, access, f"{WORK}/context"))
        local[f"{WORK}/context"] = str(opened.directory)
        if opened.ignore_file is not None:
            local[f"{WORK}/ignore"] = opened.ignore_file
    for number, item in enumerate(values["build_context"]):
        name, _, value = item.partition("=")
        if os.path.isdir(value):
            into = f"{WORK}/named-{number}"
            asked["contexts"].append(_send(session, value, None, place, access, into))
            asked["words"].append(f"--build-context={name}={into}")
            local[into] = value
        elif value.startswith("oci-layout://") or "://" not in value:
            raise Unsupported(f"--build-context cannot be used with --on but for directories and URLs: {item}")
        else:
            asked["words"].append(f"--build-context={item}")
    auth = _credentials(session, access, [*request.names, *values["cache_to"], *values["cache_from"]], given)
    if auth is not None:
        given["auth.json"] = auth
    return Prepared(given, asked, local, access)


def _check_fetched(values: Mapping[str, Any]) -> None:
    if values["file"] or values["ignorefile"]:
        raise Unsupported("--file and --ignorefile cannot be used with --on and a context that the pod fetches")


def _add_files(opened: BuildContext, given: dict[str, bytes], asked: dict[str, Any]) -> None:
    asked["files"] = []
    for number, (name, data) in enumerate(opened.files):
        if name.endswith(".in"):
            raise Unsupported(f"file to be preprocessed cannot be used with --on: {name}", hint=REFUSED["preprocess"])
        given[f"file-{number}"] = data
        asked["files"].append({"name": name, "key": f"file-{number}"})
    if opened.ignore_file is not None:
        from builda.inputfile import read_input

        given["ignore"] = read_input(opened.ignore_file, "ignore file")


def _place(said: ClusterValues, values: Mapping[str, Any], request: Request) -> str:
    """The repository that contexts go through."""
    from builda.cli.verbs import buildcache

    if said.context_via == "api":
        raise Unsupported(
            "--context-via api is not supported: a context goes through a registry",
            hint="name a repository that you may push to and the pod may pull from",
        )
    if said.context_via is not None:
        return said.context_via
    caches = buildcache.places(values["cache_to"], "--cache-to")
    if caches:
        return f"{caches[0].registry}/{caches[0].repository}"
    if request.names:
        from builda.oci.reference import Reference

        return Reference.parse(request.names[0].removeprefix("docker://")).name
    raise InvalidValue(
        "no registry is named through which the context could go to the pod",
        hint="name the image with -t, a cache with --cache-to, or the repository itself with --context-via",
    )


def _send(
    session: Session, directory: object, ignore_file: str | None, place: str, access: RegistryAccess, into: str
) -> dict[str, str]:
    import hashlib
    import socket

    from builda.cluster.sending import send
    from builda.inputfile import read_input
    from builda.oci.reference import Reference

    top = os.path.abspath(str(directory))
    text = "" if ignore_file is None else read_input(ignore_file, "ignore file").decode(errors="surrogateescape")
    unique = hashlib.sha256(os.fsencode(f"{socket.gethostname()}\0{session.settings.uid}\0{top}")).hexdigest()[:16]
    reference = Reference.parse(place)._replace(tag=f"builda-context-{unique}", digest=None)
    remote = session.builder.context.remote
    sent = send(
        top,
        text,
        ignore_file or "",
        remote.source(reference, access),
        remote.sink(reference, access),
        session.emit,
    )
    return {"reference": str(reference._replace(tag=None, digest=sent.digest)), "into": into}


def _credentials(
    session: Session, access: RegistryAccess, names: Sequence[str], given: Mapping[str, bytes]
) -> bytes | None:
    """A file with the credentials for all registries that the build names, and no others; None without any."""
    from pathlib import Path

    from builda.registry.keyring import auth_file
    from builda.registry.registryclient import RegistryClient, RegistryOptions

    settings = session.settings
    options = RegistryOptions(
        authfile=None if access.authfile is None else Path(access.authfile),
        creds=access.creds,
        registries_conf=None if settings.registries_conf is None else Path(settings.registries_conf),
    )
    found = {}
    with RegistryClient(options, environ=session.environ, uid=settings.uid) as client:
        for name in (*map(_repository, names), *_images(given)):
            with suppress(InvalidValue):  # a variable of the Containerfile, which the pod expands
                for place, looks in client.explained(name):
                    if looks and looks[-1].credentials is not None:
                        found[place.name] = looks[-1].credentials
    return auth_file(found) if found else None


def _images(given: Mapping[str, bytes]) -> Iterator[str]:
    """The names of images in the Containerfiles."""
    import re

    for key, data in given.items():
        if key.startswith("file-"):
            text = data.decode(errors="replace")
            yield from re.findall(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)", text)
            yield from re.findall(r"--from=(\S+)", text)


def _repository(text: str) -> str:
    """The name in the value of -t, --cache-to or --cache-from."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    return (fields.get("ref") or text).removeprefix("docker://")


def made(
    cluster: Cluster,
    session: Session,
    options: JobOptions,
    request: Request,
    prepared: Prepared,
    values: Mapping[str, Any],
    platform_label: str | None = None,
) -> dict[str, Any]:
    """The Job is there, and its Secret. With a label, events name the platform, as where several are built."""
    import json
    import secrets

    from builda.cluster import objects, podkinds

    level = cluster.level(podkinds.ENFORCE)
    kind = podkinds.best(level, cluster.version(), session.settings.mode)
    architecture = _architecture(values)
    if architecture is not None:
        options = options._replace(node_selector={"kubernetes.io/arch": architecture, **options.node_selector})
    subject = request.names[0].rpartition(":")[0] if request.names else ""
    name = objects.job_name(subject, secrets.token_hex(4))
    annotations = {"builda.io/names": " ".join(request.names), "builda.io/local": json.dumps(dict(prepared.local))}
    job = cluster.create("jobs", objects.job(name, kind, options, annotations))
    asked = {**prepared.asked, "words": [*request.words, *prepared.asked["words"]], "platform": platform_label}
    try:
        given = {**prepared.given, objects.REQUEST: json.dumps(asked).encode()}
        cluster.create("secrets", objects.secret(name, job, given))
    except BaseException:
        cluster.delete("jobs", name)
        raise
    return job


def _architecture(values: Mapping[str, Any]) -> str | None:
    """The architecture of the nodes that fit a build for one platform."""
    from builda.cli.core import shared_options

    (platform,) = shared_options.platforms({name: values[name] for name in ("platform", "os", "arch", "variant")})
    return None if platform is None else platform.architecture


def local_names(job: Mapping[str, Any]) -> Mapping[str, str]:
    import json

    found = (job["metadata"].get("annotations") or {}).get("builda.io/local")
    value = json.loads(found) if found else {}
    return {str(pod): str(here) for pod, here in value.items()}


@contextmanager
def removed_if_left(cluster: Cluster, job: str) -> Iterator[None]:
    """Delete the Job when its client is interrupted, or gives it up."""
    from builda.cluster.follow import JobFailed

    try:
        yield
    except (KeyboardInterrupt, SystemExit, BrokenPipeError, JobFailed):
        cluster.delete("jobs", job)
        raise


def show(
    session: Session, cluster: Cluster, job: str, local: Mapping[str, str], values: Mapping[str, Any], *, live: bool
) -> None:
    """Show the build that a Job does, and end as it does."""
    from builda.cluster.follow import follow

    def tell(text: str) -> None:
        from builda.events import Warned

        session.emit(Warned(message=text))

    view = View(session, values, local, live=live)
    try:
        for frame in follow(cluster, job, tell):
            view.show(frame)
    finally:
        view.close("interrupted")
    if view.error is not None:
        raise view.error
    if view.image is not None:
        if values["iidfile"] is not None:
            write_file(values["iidfile"], str(view.image.id))
        elif values["iidfile_raw"] is not None:
            write_file(values["iidfile_raw"], view.image.id.encoded)


class View:
    """The frames of a build as this command's output."""

    def __init__(self, session: Session, values: Mapping[str, Any], local: Mapping[str, str], *, live: bool) -> None:
        self.error: BuildaError | None = None
        self.image: ImageBuilt | None = None
        self._session = session
        self._mixed = values["jobs"] != 1 or len(values["platform"]) > 1
        self._remembers = values["layers"] is not False
        self._live = live
        self._local = sorted(local.items(), reverse=True)
        self._view: BuildView | None = None
        self._open()

    def show(self, frame: Frame) -> None:
        """Show one."""
        from builda.cluster.frames import Closed, Ended, Printed
        from builda.events import BuildFailed, ImageBuilt

        match frame:
            case Printed(text):
                self.prints(self._localized(text))
            case Closed(outcome):
                self.close(outcome)
            case Ended(error):
                self.error = None if error is None else self.localized(error)
            case _:
                from builda.cli.progress.observer import with_texts

                if self._view is None and type(frame).__name__ == "BuildStarted":
                    self._open()
                if isinstance(frame, ImageBuilt):
                    self.image = frame
                if not isinstance(frame, BuildFailed):  # who runs this command tells of its failure
                    self._session.emit(with_texts(frame, self._localized))

    def localized(self, error: BuildaError) -> BuildaError:
        """An error of the pod's with the names of this machine's files."""
        return _localized_error(error, self._localized)

    def prints(self, text: str) -> None:
        """Print what the build prints."""
        write(text)
        sys.stdout.flush()

    def close(self, outcome: str) -> None:
        """Nothing more moves in the view of the steps."""
        if self._view is not None:
            view, self._view = self._view, None
            view.close(outcome)

    def _open(self) -> None:
        from builda.cli.progress.buildview import build_view

        def make(others: Observer) -> BuildView:
            self._view = build_view(
                others,
                live=self._live,
                quiet=self._session.quiet,
                mixed=self._mixed,
                remembers=self._remembers,
                warnings=self._session.settings.warnings,
                environ=self._session.environ,
            )
            return self._view

        self._session.watch(make)

    def _localized(self, text: str) -> str:
        for pod, here in self._local:
            text = text.replace(pod, here)
        return text


def _localized_error(error: BuildaError, change: Callable[[str], str]) -> BuildaError:
    error.args = (change(str(error)),)
    error.hint = None if error.hint is None else change(error.hint)
    if getattr(error, "file", None) is not None:
        error.file = change(error.file)  # type: ignore[attr-defined]  # of those that have a place
    return error


def show_again(session: Session, cluster: Cluster, job: str) -> None:
    """Show a build from its beginning on; how it ended makes no difference to this command."""
    found = cluster.get("jobs", job)
    try:
        show(session, cluster, job, local_names(found), _NO_VALUES, live=False)
    except BuildaError as error:
        from builda.cli.core.reports import report_of

        say(report_of(error).rstrip("\n"))


def try_build(session: Session, cluster: Cluster, kind: Kind, options: JobOptions) -> None:
    """Build an image of three lines, from nothing, in a pod of this kind, and leave nothing of it."""
    import json
    import secrets

    from builda.cluster import objects

    text = b'FROM scratch\nENV CHECKED=1\nCMD ["true"]\n'
    asked = {
        "version": 1,
        "words": ["--quiet"],
        "live": False,
        "contexts": [],
        "environ": {},
        "files": [{"name": "Containerfile", "key": "file-0"}],
    }
    name = objects.job_name("check", secrets.token_hex(4))
    job = cluster.create("jobs", objects.job(name, kind, options, {}))
    try:
        cluster.create(
            "secrets", objects.secret(name, job, {objects.REQUEST: json.dumps(asked).encode(), "file-0": text})
        )
        show(
            session,
            cluster,
            name,
            {},
            _NO_VALUES,
            live=False,
        )
    finally:
        cluster.delete("jobs", name)
