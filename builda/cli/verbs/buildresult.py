"""Delivers the result of `build`: names, lists, registries, outputs, files, and the last lines of standard output."""

from __future__ import annotations

from builda.cli.building import buildcache, outputs
from builda.cli.core.output import print_line, print_words, write_file
from builda.cli.progress.buildview import stage_prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.execution.buildoptions import Built, ExecuteOptions
    from builda.cli.core.verbsession import Session


def _line(session: Session, text_: str) -> None:
    """One of Buildah's lines, unless quiet."""
    if not session.quiet:
        print_words(text_)


def publish(session: Session, built: Built, options: ExecuteOptions, values: dict[str, Any]) -> tuple[str, ...]:
    """Names (which are returned), lists, files and the last lines on stdout."""
    from builda.builder.image.push import local_name, write_to
    from builda.transfer.locate import parse_location

    image, store = built.image, session.store
    names: list[str] = []
    tags = values.pop("tag")
    _line(session, f"{stage_prefix(built.stage)}COMMIT {tags[0] if tags else ''}".rstrip())
    _line(session, f"--> {image.id.encoded[:12]}")
    for tag in tags:
        location = parse_location(tag)
        if location is not None and not location.in_store:
            write_to(session.builder.context, image, location, options.inputs.access)
            names.append(tag)
            continue
        name = local_name(tag if location is None else location.where)
        store.images.tag(image, name)
        names.append(name)
        _line(session, f"Successfully tagged {name}")
    if (manifest := values.pop("manifest")) is not None:
        from builda.builder.image import manifestlist

        manifestlist.appended(store, local_name(manifest), image)
    buildcache.push(session, built, values.pop("cache_to"), options.inputs.access)
    if options.inputs.caches is not None:
        options.inputs.caches.leave()
    for output in outputs.parse(values["output"]):
        outputs.write(session, image, output, names[0] if names else None, options.inputs.access)
    _write_ids(session, built, values)
    return tuple(names)


def _write_ids(session: Session, built: Built, values: dict[str, Any]) -> None:
    if values["metadata_file"] is not None:
        from builda.cli.verbs.commit import metadata

        write_file(values["metadata_file"], metadata(session.store, built.image))
    if values["iidfile"] is not None:
        write_file(values["iidfile"], str(built.image.id))
    elif values["iidfile_raw"] is not None:
        write_file(values["iidfile_raw"], built.image.id.encoded)
    elif not outputs.to_stdout(values["output"]):
        print_line(built.image.id.encoded)
