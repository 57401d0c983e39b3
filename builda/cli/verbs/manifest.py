"""`manifest create`, `add`, `annotate`, `remove`, `inspect`, `push`, `rm` and `exists`: lists of images."""

from __future__ import annotations

from collections.abc import Mapping

from builda.cli.core import shared_options
from builda.cli.core.options import Params, argument, listed, switch, text
from builda.cli.core.output import check_files, print_json, print_line, write_file
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs import deferred
from builda.errors import InvalidValue
from builda.oci.reference import in_store
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.image.listmembers import Places
    from builda.builder.image.manifestlist import Duplicates, EntryEdit, Present
    from builda.cli.core.verbsession import Session
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.manifest import Index

_ALL = switch("--all", help="Of a list, take every image that it names, instead of the one for this machine.")
_ENTRY: Params = (
    listed("--annotation", metavar="NAME=VALUE,…", help="Set annotations of the entry in the list."),
    text("--os", help="The operating system of the image."),
    text("--arch", help="The architecture of the image."),
    text("--variant", help="The variant of the architecture."),
    text("--os-version", help="The version of the operating system."),
    listed("--os-features", metavar="FEATURE,…", help="What the image needs of the operating system."),
    listed("--features", metavar="FEATURE,…", help="What the image needs of the processor."),
)
_ARTIFACT: Params = (
    switch("--artifact", help="What is named are files; add an artifact of them."),
    text("--artifact-type", metavar="TYPE", help="The type of the artifact."),
    text("--artifact-config", metavar="FILE", help="The configuration of the artifact."),
    text("--artifact-config-type", metavar="TYPE", help="The media type of its configuration."),
    text("--artifact-layer-type", metavar="TYPE", help="The media type of its files (default: by their names)."),
    switch("--artifact-exclude-titles", help="Do not record the names of the files."),
    text("--artifact-subject", metavar="IMAGE", help="The image that the artifact is about."),
    listed("--artifact-annotation", metavar="NAME=VALUE,…", help="Set annotations of the artifact."),
)


@verb(
    argument("name"),
    argument("images", nargs=-1, complete=complete.images),
    _ALL,
    switch("--amend", help="Change the list if there is one; an image of that name becomes the first of the list."),
    switch("--replace", help="Take the name from the list or image that has it."),
    switch("--allow-duplicate", help="Take several images for the same platform."),
    listed("--annotation", metavar="NAME=VALUE,…", help="Set annotations of the list."),
    text("--os", hidden=True, help="Of a list, take the image for this operating system."),
    text("--arch", hidden=True, help="Of a list, take the image for this architecture."),
    switch("--insecure", hidden=True, help="As --tls-verify=false."),
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="manifest-create",
    interspersed=True,
    example="builda manifest create app:1 registry.example.org/app:1-amd64 registry.example.org/app:1-arm64",
)
def create(session: Session, *, name: str, images: tuple[str, ...], amend: bool, replace: bool, **values: Any) -> None:
    """Make a list of images, and print its ID.

    IMAGES are images of the store, or names in registries, of which no layer is fetched: the list remembers where they
    are. The ID of a list is its digest, so that it changes with the list.
    """
    from builda.builder.image import manifestlist
    from builda.builder.image.push import local_name

    if amend and replace:
        raise InvalidValue("--amend cannot be used with --replace")
    if values.pop("insecure"):
        values["tls_verify"] = False
    annotations = _pairs(values.pop("annotation"), "--annotation")
    every = values.pop("all")
    duplicates: Duplicates = "keep" if values.pop("allow_duplicate") else "refuse"
    platform = shared_options.platform(values) or _machine()
    places = _places(session, values)
    full = local_name(in_store(name))
    entries = [entry for image in images for entry in _entries(places, image, platform, every)]

    def change(index: Index) -> Index:
        for entry in entries:
            index = manifestlist.with_entry(index, entry, duplicates)
        return manifestlist.with_annotations(index, annotations)

    present: Present = "change" if amend else "replace" if replace else "refuse"
    print_line(manifestlist.created(session.store, full, change, present=present).id.encoded)


@verb(
    argument("name", complete=complete.images),
    argument("images", nargs=-1, required=True, complete=complete.images),
    _ALL,
    switch("--replace", help="Take the place of the image that the list has for the same platform."),
    switch("--allow-duplicate", help="Stay beside the image that the list has for the same platform."),
    _ENTRY,
    _ARTIFACT,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="manifest-add",
    interspersed=True,
    example="builda manifest add --variant v8 app:1 docker://registry.example.org/app:1-arm64",
)
def add(session: Session, *, name: str, images: tuple[str, ...], **values: Any) -> None:
    """Add images to a list, and print its new ID with the digest of each.

    An image is one of the store, or a name in a registry: of that only its manifest and configuration are fetched. Of a
    list the image for this machine is added, or the one that --os, --arch and --variant name; else these say what the
    entry is for. An image that the list has already is not added again; what the options say of it is changed.
    """
    from builda.builder.image import manifestlist

    every, files = values.pop("all"), values.pop("artifact")
    replaces, keeps = values.pop("replace"), values.pop("allow_duplicate")
    if replaces and keeps:
        raise InvalidValue("--replace cannot be used with --allow-duplicate")
    edit = _edit(values)
    if every and (edit.names_platform or files):
        raise InvalidValue("--all cannot be used with options for one image", hint="annotate them afterwards")
    artifact = {key: values.pop(key) for key in tuple(values) if key.startswith("artifact_")}
    manifestlist.list_image(session.store, name)
    places = _places(session, values)
    if files:
        entries = [_artifact(places, images, artifact)]
    else:
        _no_artifact(artifact)
        entries = [entry for one in images for entry in _entries(places, one, _wanted(edit), every)]
    duplicates: Duplicates = "replace" if replaces else "keep" if keeps else "refuse"

    def change(index: Index) -> Index:
        for entry in entries:
            index = manifestlist.with_entry(index, entry, duplicates, edit)
        return index

    changed = manifestlist.changed(session.store, name, change)
    for entry in entries:
        print_line(f"{changed.id.encoded}: {entry.digest}")


@verb(
    argument("name", complete=complete.images),
    argument("image", required=False, complete=complete.images),
    switch("--index", help="Set annotations of the list itself."),
    text("--subject", metavar="IMAGE", help="The image or list that this list is about."),
    _ENTRY,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="manifest-annotate",
    interspersed=True,
    example="builda manifest annotate --os-version 10.0.17763 app:1 app:1-windows",
)
def annotate(
    session: Session, *, name: str, image: str | None, index: bool, subject: str | None, **values: Any
) -> None:
    """Say more of an image in a list, or of the list.

    IMAGE is a digest, or the name of an image. The new ID of the list is printed, with the digest of the image.
    """
    from builda.builder.image import listmembers, manifestlist

    edit = _edit(values)
    places = _places(session, values)
    if index or subject is not None:
        if image is not None or edit.names_platform:
            raise InvalidValue("--index and --subject are about the list, not about one of its images")
        about = None if subject is None else listmembers.subject(places, subject)
        changed = manifestlist.changed(
            session.store, name, lambda found: manifestlist.with_annotations(found, edit.annotations, about)
        )
        print_line(changed.id.encoded)
        return
    if image is None:
        raise InvalidValue("missing argument: IMAGE", hint="--index is about the list itself")
    manifestlist.list_image(session.store, name)
    digest = listmembers.digest_of(places, image, _wanted(edit))
    changed = manifestlist.changed(session.store, name, lambda found: manifestlist.with_edit(found, digest, edit))
    print_line(f"{changed.id.encoded}: {digest}")


@verb(
    argument("name", complete=complete.images),
    argument("image", complete=complete.images),
    name="manifest-remove",
    interspersed=True,
    example="builda manifest remove app:1 app:1-arm64",
)
def remove(session: Session, *, name: str, image: str) -> None:
    """Take an image out of a list.

    IMAGE is a digest, or the name of an image. The new ID of the list is printed, with the digest of the image.
    """
    from builda.builder.image import listmembers, manifestlist

    manifestlist.list_image(session.store, name)
    digest = listmembers.digest_of(_places(session, {}), image, _machine())
    changed = manifestlist.changed(session.store, name, lambda found: manifestlist.without_entry(found, digest))
    print_line(f"{changed.id.encoded}: {digest}")


@verb(
    argument("name", complete=complete.images),
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="manifest-inspect",
    interspersed=True,
    example="builda manifest inspect docker.io/library/debian:bookworm",
)
def inspect(session: Session, *, name: str, **values: Any) -> None:
    """Print a list as JSON: one of the store, or else of a registry, of which nothing is kept."""
    from builda.builder.image import listmembers
    from builda.events import Warned
    from builda.oci.document import decode_any
    from builda.oci.manifest import Index

    data, document = listmembers.document_of(_places(session, values), name)
    if not isinstance(document, Index):
        session.emit(Warned(message=f"is an image, not a list: {name}"))
    print_json(decode_any(data, "manifest list"))


@verb(
    argument("name", complete=complete.images),
    argument("destination", required=False),
    switch("--all", default=True, help="Push the images of the list, too; else the registry has to have them."),
    text("--digestfile", metavar="FILE", help="Write the digest of the list there into this file."),
    text("--format", "-f", metavar="FORMAT", help="Convert the list and its images to oci or v2s2."),
    switch("--rm", help="Remove the list from the store afterwards."),
    switch("--quiet", "-q", help="Show no progress."),
    listed("--add-compression", metavar="FORMAT,…", help="Add each image compressed so, beside what is there."),
    switch("--force-compression", help="Compress again what is compressed otherwise."),
    shared_options.COMPRESSION,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.SIGNATURES,
    shared_options.SIGNING,
    shared_options.HIDDEN,
    name="manifest-push",
    interspersed=True,
    example="builda manifest push --rm app:1 docker://registry.example.org/app:1",
)
def push(session: Session, *, name: str, destination: str | None, digestfile: str | None, **values: Any) -> None:
    """Copy a list with its images to a registry, a layout or an archive.

    Images that the store does not have come from the registries that had them when they were added. DESTINATION is the
    list's own name when left out; without a transport it is a registry's.
    """
    from builda.builder.image import manifestlist

    manifestlist.list_image(session.store, name)
    session.quiet, removes = values.pop("quiet"), values.pop("rm")
    added, alone = tuple(map(shared_options.compression_named, values.pop("add_compression"))), not values.pop("all")
    if added and alone:
        raise InvalidValue("--add-compression cannot be used with --all=false", hint="it makes further images")
    options = replace(shared_options.push_options(values, session.environ, alone=alone), added_compressions=added)
    check_files(digestfile)
    if deferred.put_off(session, name, destination, options, digestfile):
        return
    written = session.builder.push(*deferred.target(session, name, destination), options)
    write_file(digestfile, str(written.digest))
    if removes:
        session.store.remove_image(in_store(name), force=False)


@verb(
    argument("lists", nargs=-1, required=True, complete=complete.images),
    name="manifest-rm",
    interspersed=True,
    example="builda manifest rm app:1",
)
def rm(session: Session, *, lists: tuple[str, ...]) -> None:
    """Remove lists.

    Images that they name stay in the store if they have a name or a record of their own.
    """
    from builda.builder.image import manifestlist
    from builda.cli.main import each
    from builda.cli.verbs.images import print_removal

    untagged: list[str] = []
    deleted: list[str] = []

    def take(name: str) -> None:
        manifestlist.list_image(session.store, name)
        removal = session.store.remove_image(in_store(name), force=False, sweep=False)
        untagged.extend(removal.untagged)
        deleted.extend(removal.deleted)

    try:
        each(lists, take)
    finally:
        print_removal(untagged, deleted)
        if deleted:
            session.store.sweep()


@verb(
    argument("name", complete=complete.images),
    name="manifest-exists",
    interspersed=True,
    example="builda manifest exists app:1 || builda manifest create app:1",
)
def exists(session: Session, *, name: str) -> None:
    """Say by the exit status whether the store has a list of this name or ID.

    0 means yes, 1 no, 125 that this could not be found out. Nothing is printed."""
    found = session.store.find_image(in_store(name))
    if found is None or not found.is_index:
        raise SystemExit(1)


def _places(session: Session, values: dict[str, Any]) -> Places:
    """The places to look for images, by the options REGISTRY, RETRY and HIDDEN in `values`."""
    from builda.builder.image.listmembers import Places

    access = shared_options.registry_access(values, session.environ)
    return Places(session.store, session.builder.context.remote, access, session.emit)


def _entries(places: Places, image: str, platform: Platform, every: bool) -> tuple[Descriptor, ...]:
    from builda.builder.image import listmembers

    return listmembers.entries(places, image, platform, every=every)


def _machine() -> Platform:
    from builda.builder.image.pull import machine_platform

    return machine_platform()


def _edit(values: dict[str, Any]) -> EntryEdit:
    """Take the options _ENTRY out of `values`, as changes to an entry."""
    from builda.builder.image.manifestlist import EntryEdit

    return EntryEdit(
        os=values.pop("os"),
        architecture=values.pop("arch"),
        variant=values.pop("variant"),
        os_version=values.pop("os_version"),
        os_features=values.pop("os_features"),
        features=values.pop("features"),
        annotations=_pairs(values.pop("annotation"), "--annotation"),
    )


def _wanted(edit: EntryEdit) -> Platform:
    """The platform to choose from a list: by the options of the entry, else this machine's."""
    from builda.values import replace

    here = _machine()
    moved = edit.architecture is not None and edit.architecture != here.architecture
    return replace(
        here,
        os=edit.os or here.os,
        architecture=edit.architecture or here.architecture,
        variant=edit.variant or (None if moved else here.variant),
    )


def _artifact(places: Places, files: tuple[str, ...], values: Mapping[str, Any]) -> Descriptor:
    from builda.builder.image import artifacts, listmembers

    subject = values["artifact_subject"]
    options = artifacts.ArtifactOptions(
        type=values["artifact_type"],
        config=values["artifact_config"],
        config_type=values["artifact_config_type"],
        file_type=values["artifact_layer_type"],
        titles=not values["artifact_exclude_titles"],
        subject=None if subject is None else listmembers.subject(places, subject),
        annotations=_pairs(values["artifact_annotation"], "--artifact-annotation"),
    )
    return artifacts.put(places.store, files, options)


def _no_artifact(values: Mapping[str, Any]) -> None:
    """No option of an artifact is given without --artifact."""
    for name, value in values.items():
        if value:
            raise InvalidValue(f"--{name.replace('_', '-')} needs --artifact")


def _pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """Names and values of an option that is given as NAME=VALUE."""
    for value in values:
        if value.find("=") < 1:
            raise InvalidValue(f"{option} is written NAME=VALUE: {value}")
    return dict(value.split("=", 1) for value in values)
