"""`copy` and `add`: files into a working container."""

from __future__ import annotations

from builda.cli.building import lockfiles
from builda.cli.core import shared_options
from builda.cli.core.options import Params, argument, listed, many, number, switch, text
from builda.cli.core.output import print_line
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs.failing import noting
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.oci.digest import Digest
    from builda.plan import Copy, InlineFile, Source

_HERE = "./"
"""The destination when none is given: the working directory, as a directory."""

_OPTIONS: Params = (
    argument("container", complete=complete.containers),
    argument("paths", nargs=-1, required=True),
    text("--from", "from_", metavar="CONTAINER|IMAGE", help="Take the sources from there instead of from the host."),
    text("--chown", metavar="USER[:GROUP]", help="The owner of what is copied (default 0:0; kept with --from)."),
    text("--chmod", metavar="MODE", help="The mode of what is copied, as in chmod(1)."),
    text("--contextdir", metavar="DIR", help="Sources start in this directory and never leave it."),
    text("--ignorefile", metavar="FILE", help="Skip what this file lists, not what that of --contextdir does."),
    listed("--exclude", metavar="PATTERN,…", help="Skip what matches."),
    text("--checksum", metavar="DIGEST", help="What a URL must deliver, as sha256:…"),
    switch("--link", help="Make the files a layer of their own, whatever lies below."),
    number("--timestamp", metavar="SECONDS", help="The modification time of everything copied."),
    switch("--no-follow-symlinks", help="Copy a source that is a symbolic link as a link."),
    switch("--allow-wildcard", default=True, help="Take *, ? and [] in sources for patterns (default)."),
    switch("--allow-empty-wildcard", help="No failure if no source matches anything."),
    switch("--as-containerfile", help="As COPY and ADD of a Containerfile where they differ from Buildah's verbs."),
    switch("--parents", help="Keep the directories of the sources; /./ says where they begin."),
    many("--inline", metavar="NAME=TEXT", help="Copy this text too, as a file of that name."),
    switch("--layer", help="Make a layer of what is copied, as a build does."),
    text("--created-by", metavar="TEXT", help="What the history says of the copy."),
    switch("--quiet", "-q", help="Do not print the digest."),
    switch("--add-history", default=None, is_on=True, help="Record the copy in the history.  [env: BUILDA_HISTORY]"),
    *shared_options.REGISTRY,
    *shared_options.RETRY,
    *shared_options.DECRYPTION,
    *shared_options.SIGNATURES,
    *shared_options.HIDDEN,
)


@verb(
    _OPTIONS,
    example="builda copy --chown 1000:1000 $c app/ /srv/app/",
)
def copy(session: Session, **values: Any) -> None:
    """Copy files into a working container, and print their digest.

    Sources are files, directories and URLs; the digest is that of their content.

    The last path is the destination when there are two or more; otherwise files go to the working directory.
    A destination that ends in / is a directory. Of a directory its content is copied.
    """
    _copy(session, extract=False, values=values)


@verb(
    _OPTIONS,
    switch("--unpack", default=None, help="Unpack archives from URLs too; --unpack=false unpacks none."),
    switch("--keep-git-dir", help="Keep .git of a repository."),
    example="builda add $c https://example.org/tool.tar.gz /opt/",
)
def add(session: Session, **values: Any) -> None:
    """Copy files into a working container, and unpack archives.

    Sources are files, directories and URLs; the digest of their content is printed.

    The last path is the destination when there are two or more; otherwise files go to the working directory.
    tar archives, also compressed with gzip, bzip2, xz or zstd, are unpacked unless they come from a URL.
    """
    _copy(session, extract=True, values=values)


def _copy(session: Session, *, extract: bool, values: dict[str, Any]) -> None:
    from builda.builder.imageoptions import Inputs
    from builda.plan import Configure, Copy, Run
    from builda.values import replace

    session.quiet = values.pop("quiet")
    container = session.container(values.pop("container"))
    inline = _inline(values.pop("inline"))
    *sources, destination = _paths(values.pop("paths"), bool(inline))
    context, ignore_file = values.pop("contextdir") or None, values.pop("ignorefile") or None
    if context is not None:
        sources = [_inside(context, source) for source in sources]
        ignore_file = ignore_file or _ignore_file_of(context)
    elif ignore_file is not None:
        raise InvalidValue("--ignorefile needs --contextdir")
    inputs = Inputs(
        context=context, ignore_file=ignore_file, access=shared_options.registry_access(values, session.environ)
    )
    step = Copy(
        sources=tuple(sources),
        destination=destination,
        inline=inline,
        source=_source(session, values.pop("from_")),
        chown=values.pop("chown"),
        chmod=values.pop("chmod"),
        unpack=values.pop("unpack", None),
        keep_git_dir=values.pop("keep_git_dir", False),
        excludes=values.pop("exclude"),
        checksum=values.pop("checksum"),
        link=values.pop("link"),
        timestamp=values.pop("timestamp"),
        follow_symlinks=not values.pop("no_follow_symlinks"),
        allow_wildcard=values.pop("allow_wildcard"),
        allow_empty_wildcard=values.pop("allow_empty_wildcard"),
        as_containerfile=values.pop("as_containerfile"),
        parents=values.pop("parents"),
        extract=extract,
    )
    step = lockfiles.copied(session, step, inputs.access)
    layer, created_by = values.pop("layer") or step.link, values.pop("created_by")
    records = shared_options.adds_history(values.pop("add_history"), session.environ) or layer
    if not layer:
        step = replace(step, created_by=created_by)
    if step.link:
        session.builder.freeze(container, background=False, only_changes=True)
    with noting(session, container, Run(args=(), text=_text(step)), inputs):
        _, digest = session.builder.copy(container, step, inputs=inputs)
    if created_by is None and records and digest is not None:
        created_by = f"/bin/sh -c #(nop) {'ADD' if extract else 'COPY'} {_content(step, digest)} in {destination}"
        if not layer:
            session.builder.config(container, Configure(edits=(), created_by=created_by))
    if layer:
        session.builder.freeze(container, created_by=created_by, background=False)
    if digest is not None and not session.quiet:
        print_line(digest.encoded)


def _text(step: Copy) -> str:
    """The step as notes and lists show it."""
    sources = (*step.sources, *(file.name for file in step.inline))
    return " ".join(("add" if step.extract else "copy", *sources, step.destination))


def _content(step: Copy, digest: Digest) -> str:
    """What was copied, as history says it: by content, as paths of the host differ from build to build."""
    import os

    from builda.plan import Context

    several = len(step.sources) + len(step.inline) > 1
    is_directory = bool(step.sources) and isinstance(step.source, Context) and os.path.isdir(step.sources[0])
    kind = "multi" if several else "dir" if is_directory else "file"
    return f"{kind}:{digest.encoded}"


def _inside(context: str, source: str) -> str:
    """`source` from the context's top; an absolute path that leads into the context names the same file."""
    import os

    if not os.path.isabs(source):
        return source
    path = os.path.normpath(source)
    for top in (os.path.abspath(context), os.path.realpath(context)):
        if path == top or path.startswith(f"{top}/"):
            return f"{os.path.relpath(path, top)}{'/' if source.endswith('/') else ''}"
    return source


def _ignore_file_of(context: str) -> str | None:
    from builda.containerfile import find_ignore_file

    return find_ignore_file(context, f"{context}/")


def _paths(paths: tuple[str, ...], inline: bool) -> tuple[str, ...]:
    return paths if len(paths) > 1 or inline else (*paths, _HERE)


def _inline(items: tuple[str, ...]) -> tuple[InlineFile, ...]:
    from builda.plan import InlineFile

    pairs = [item.partition("=") for item in items]
    if wrong := [item for item, (name, equals, _) in zip(items, pairs, strict=True) if not name or not equals]:
        raise InvalidValue(f"inline file is written NAME=TEXT: {wrong[0]}")
    return tuple(InlineFile(name, content.encode("utf-8", "surrogateescape")) for name, _, content in pairs)


def _source(session: Session, name: str | None) -> Source:
    from builda.plan import Context, FromContainer, FromImage

    if name is None:
        return Context()
    return FromContainer(name) if session.store.containers.find(name) is not None else FromImage(name)
