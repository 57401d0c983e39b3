"""A target of a bake file as the command line of `build`, and what it needs that only the user may grant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from builda.cli.building import outputs
from builda.cli.building.clusterrequest import quoted
from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.bake.fields import Target

_IN_STORE = ("docker", "image")
_NOWHERE = "cacheonly"


class Planned(NamedTuple):
    """One build: the words of its command line without the context, and the builds whose images it uses."""

    name: str
    context: str
    words: tuple[str, ...]
    inline: str | None = None
    """A Containerfile that stands in the bake file itself ..."""
    place: str = ""
    """... where it is."""
    needs: Mapping[str, str] = {}
    """Names of contexts, and the builds whose images they are."""

    def with_images(self, images: Mapping[str, str]) -> Planned:
        """The build when it is known what the images of other builds are called."""
        words = [f"--build-context={name}=docker-image://{images[other]}" for name, other in self.needs.items()]
        return self._replace(words=(*self.words, *words))


def planned(target: Target, *, push: bool, is_linked: bool) -> Planned:
    """The build of a target. `is_linked`: other targets use its image, and it goes nowhere else."""
    from builda.bake.documents import fault

    context = target.text("context") or "."
    if context.startswith("target:") or context == "-":
        raise fault(target.place, f"target {target.name}: context is a directory or a URL: {context}")
    inline = target.text("dockerfile-inline")
    words: list[str] = []
    file = target.text("dockerfile")
    if file and inline is None:
        words.append(f"--file={quoted(_file(context, file))}")
    if target.texts("no-cache-filter"):
        raise fault(
            target.place, f"target {target.name}: no-cache-filter is not supported", "no-cache is for all stages"
        )
    for name in ("args", "labels"):
        words += [f"--{_PAIRS[name]}={key}={value}" for key, value in target.pairs(name).items()]
    words += [f"--add-host={key}:{value}" for key, value in target.pairs("extra-hosts").items()]
    for name, option in _LISTS.items():
        words += [f"--{option}={quoted(value) if option in _SPLIT else value}" for value in target.texts(name)]
    words += [f"--annotation={_annotation(target, value)}" for value in target.texts("annotations")]
    for name, option in _TEXTS.items():
        if (value := target.text(name)) is not None:
            words.append(f"--{option}={value}")
    if target.is_on("pull"):
        words.append("--pull=always")
    if target.is_on("no-cache"):
        words.append("--no-cache")
    if not is_linked:
        words += _outputs(target, push=push)
    needs = {name: value[7:] for name, value in target.pairs("contexts").items() if value.startswith("target:")}
    words += [
        f"--build-context={name}={value}" for name, value in target.pairs("contexts").items() if name not in needs
    ]
    return Planned(target.name, context, tuple(words), inline, f"{target.place}", needs)


_PAIRS = {"args": "build-arg", "labels": "label"}
_TEXTS = {"target": "target", "network": "network", "shm-size": "shm-size"}
_LISTS = {
    "platforms": "platform",
    "cache-from": "cache-from",
    "cache-to": "cache-to",
    "secret": "secret",
    "ssh": "ssh",
    "ulimits": "ulimit",
    "attest": "attest",
}
_SPLIT = ("platform", "ulimit")
"""Options of `build` that split their values at commas."""


def _file(context: str, file: str) -> str:
    """Where a Containerfile is: in the context, unless that is fetched."""
    if file.startswith("cwd://"):
        return file[6:]
    if os.path.isabs(file) or not is_directory(context):
        return file
    return os.path.normpath(os.path.join(context, file))


def is_directory(context: str) -> bool:
    """Whether a context is of this machine."""
    from builda.cli.building.contexts import is_fetched

    return not is_fetched(context)


def _annotation(target: Target, value: str) -> str:
    from builda.bake.documents import fault

    kind, colon, rest = value.partition(":")
    if colon and "=" not in kind and "." not in kind:
        if kind.split("[")[0] == "manifest":
            return rest
        raise fault(target.place, f"target {target.name}: annotations are of manifests only: {value}")
    return value


def _outputs(target: Target, *, push: bool) -> list[str]:
    """-t and -o. Without a word about outputs the image stays in the store, as it does with type=docker."""
    tags = target.texts("tags")
    with _placed(target):
        said = [(output, _fields(output)) for output in target.texts("output")]
    kinds = [fields.get("type", "local") for _, fields in said]
    if kinds and all(kind == _NOWHERE for kind in kinds) and not push:
        return []
    words = [f"--tag={tag}" for tag in tags]
    pushed = push
    for (output, fields), kind in zip(said, kinds, strict=True):
        if kind == _NOWHERE or (kind in _IN_STORE and not (fields.keys() & {"dest", "name", "push"})):
            continue
        if (kind == "registry" or fields.get("push") == "true") and not fields.get("name"):
            pushed = True
            continue
        words.append(f"--output={output}")
    if pushed:
        if not tags:
            raise InvalidValue(f"{target.place}: target {target.name} has no tags that its image could be pushed to")
        words += [f"--output=type=registry,{quoted(f'name={tag}')}" for tag in tags]
    return words


def _fields(output: str) -> dict[str, str]:
    """The fields of an output as `build` reads them."""
    return outputs.fields_of(output) if "=" in output else {"dest": output}


@contextmanager
def _placed(target: Target) -> Iterator[None]:
    """Errors of the options' readers say which target they are about, and where that is."""
    try:
        yield
    except BuildaError as error:
        error.args = (f"{target.place}: target {target.name}: {error}",)
        raise


def check_allowed(
    targets: Iterable[Target], allow: Sequence[str], directory: str, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """The permissions of --allow that builds get; InvalidValue for a target that needs more than is allowed.

    Files ask, and only the command line grants: the host's network, commands that are privileged, an agent for SSH,
    and files outside of `directory`, which a target reads (contexts, secrets, keys) or writes (outputs, tags). What
    options mean is asked of their own readers, so that no other way of writing them means something else here.
    """
    reads, writes, rest = _granted(allow, directory)
    for target in targets:
        for name in target.texts("entitlements"):
            if name not in rest and not name.startswith("fs"):
                raise _refused(target, f"entitlement {name}", name)
        network = target.text("network") or ""
        if "network.host" not in rest and (network == "host" or network.removeprefix("ns:").startswith("/")):
            what = "the host's network" if network == "host" else f"the network of {network}"
            raise _refused(target, what, "network.host")
        if target.texts("ssh") and "ssh" not in rest:
            raise _refused(target, "an agent for SSH", "ssh")
        with _placed(target):
            read, written = tuple(_read_by(target, environ)), tuple(_written_by(target))
        for path in read:
            _check(target, path, directory, reads, "read", "fs.read")
        for path in written:
            _check(target, path, directory, writes, "write", "fs.write")
    return tuple(name for name in rest if name != "ssh")


def _granted(allow: Sequence[str], directory: str) -> tuple[list[str], list[str], list[str]]:
    reads, writes, rest = [directory], [directory], []
    for item in (part.strip() for text in allow for part in text.split(",")):
        name, _, path = item.partition("=")
        if name not in ("fs", "fs.read", "fs.write"):
            rest.append(item)
            continue
        if not path:
            raise InvalidValue(f"--allow {name} names a path: {name}=PATH", hint="* is every path")
        real = "/" if path == "*" else os.path.realpath(path)
        if name != "fs.write":
            reads.append(real)
        if name != "fs.read":
            writes.append(real)
    return reads, writes, rest


def _refused(target: Target, what: str, name: str) -> InvalidValue:
    return InvalidValue(
        f"{target.place}: target {target.name} asks for {what}, which is not allowed",
        hint=f"allow it with --allow {name}",
    )


def _check(target: Target, path: str, directory: str, tops: Sequence[str], verb: str, name: str) -> None:
    real = os.path.realpath(os.path.join(directory, path))
    if not any(real == top or real.startswith(top.rstrip("/") + "/") for top in tops):
        raise _refused(target, f"leave to {verb} {path}, outside of the current directory", f"{name}={path}")


def _read_by(target: Target, environ: Mapping[str, str]) -> Iterator[str]:
    from builda.cli.building.secrets import agent_paths, secret_of
    from builda.transfer.locate import parse_location

    context = target.text("context") or "."
    if is_directory(context):
        yield context
    if (file := target.text("dockerfile")) and target.text("dockerfile-inline") is None:
        yield _file(context, file)
    for value in target.pairs("contexts").values():
        if value.startswith("oci-layout://"):
            location = parse_location(f"oci:{value.removeprefix('oci-layout://')}")
            assert location is not None, "oci is a transport"
            yield location.where
        elif not value.startswith("target:") and "://" not in value and is_directory(value):
            yield value
    for secret in target.texts("secret"):
        if (path := secret_of(secret, environ).path) is not None:
            yield path
    for agent in target.texts("ssh"):
        yield from agent_paths(agent)[1]


def _written_by(target: Target) -> Iterator[str]:
    from builda.transfer.locate import parse_location

    for output in target.texts("output"):
        path = _fields(output).get("dest")
        if path and path != outputs.STDOUT:
            yield path
    for tag in target.texts("tags"):
        location = parse_location(tag)
        if location is not None and location.row is not None:
            yield location.where


def check_words(build: Planned) -> None:
    """InvalidValue for values that the options of `build` do not take, with the target's place.

    Unsupported for an output that goes to standard output, which has the words of all builds.
    """
    from builda.cli.core.line import Odd
    from builda.cli.verbs import verb_named

    verb = verb_named("build")
    where = f"{build.place}: target {build.name}" if build.place else build.name
    for word in build.words:
        try:
            values = verb.read([word], {}, path="builda build").values(verb.rows)
        except Odd as error:
            raise InvalidValue(f"{where}: value cannot be read: {word.removeprefix('--')}") from error
        except BuildaError as error:
            error.args = (f"{where}: {error}",)
            raise
        _check_values(values, where)


def _check_values(values: Mapping[str, object], where: str) -> None:
    """What `build` itself would find wrong only when it begins."""
    from builda.cli.building import buildcache, buildinput
    from builda.cli.core import shared_options

    try:
        to_stdout = outputs.to_stdout(tuple(values["output"]))  # type: ignore[arg-type]  # of a row that gives texts
        buildinput.check_names(tuple(values["tag"]))  # type: ignore[arg-type]
        buildcache.places(tuple(values["cache_from"]), "--cache-from")  # type: ignore[arg-type]
        buildcache.places(tuple(values["cache_to"]), "--cache-to")  # type: ignore[arg-type]
        shared_options.platforms({name: values[name] for name in ("platform", "os", "arch", "variant")})
    except BuildaError as error:
        error.args = (f"{where}: {error}",)
        raise
    if to_stdout:
        raise Unsupported(f"{where} writes its result to standard output", hint="name a file with dest")
