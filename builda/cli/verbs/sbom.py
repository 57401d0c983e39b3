"""`image sbom`: which packages an image has, as a document or a table."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import check_files, print_table, write
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import InvalidValue
from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.image.describe import Seen
    from builda.cli.core.verbsession import Session
    from builda.contents.scan import Contents

_FORMATS = {
    "spdx-json": "spdx-json",
    "spdx": "spdx-json",
    "cyclonedx-json": "cyclonedx-json",
    "cyclonedx": "cyclonedx-json",
    "purl": "purl",
    "table": "table",
}


@verb(
    argument("image", complete=complete.images),
    text(
        "--format",
        "-f",
        "form",
        metavar="FORMAT",
        help="spdx-json (default), cyclonedx-json, purl (package URLs as JSON) or table.",
    ),
    switch("--attached", help="Print the SBOM that is attached to the image; no layer is read."),
    text("--output", "-o", metavar="FILE", help="Write into this file instead of printing."),
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-sbom",
    interspersed=True,
    example="builda image sbom --format cyclonedx-json --output app.cdx.json app:1",
)
def sbom(session: Session, *, image: str, form: str | None, attached: bool, output: str | None, **values: Any) -> None:
    """Print which packages an image has: one of the store, or any place written with its transport.

    The layers are read once, and nothing of them is run or unpacked. Known are packages of dpkg, apk and rpm, Python
    distributions, Node packages and the modules of programs made by Go; each with the file and layer that says so, and
    its licence if it says one. What cannot be read is told as a warning and in the document.

    With --attached the SBOM is printed that `bud --sbom`, `commit --sbom` or docker buildx attached to the image.
    """
    from builda.builder.image import contents, describe
    from builda.builder.image.pull import machine_platform

    chosen = format_named(form or "spdx-json")
    check_files(output)
    access = shared_options.registry_access(values, session.environ)
    platform = shared_options.platform(values) or machine_platform()
    ctx = session.builder.context
    seen = describe.seen(ctx, image, access, platform)
    if attached:
        _written(_attached(seen, image, form), output)
        return
    found = contents.contents_of(seen.source, seen.manifest.layers)
    for missing in found.warnings:
        session.emit(Warned(message=f"packages may be missing: {missing}"))
    if chosen == "table":
        _print_table(found)
        return
    subject = contents.subject_of(ctx, image, seen, shared_options.epoch(None, None, session.environ))
    _written(contents.made(chosen, subject, found), output)


def _attached(seen: Seen, name: str, form: str | None) -> bytes:
    """The document in the statement that is attached; without a format SPDX's or, if there is none, CycloneDX's."""
    from builda.attestations.statement import CYCLONEDX, OF_FORMAT, SPDX
    from builda.builder.image.statements import predicate_in, statement_of, types_of

    chosen = None if form is None else format_named(form)
    if chosen is not None and chosen not in OF_FORMAT:
        raise InvalidValue(f"--attached cannot be used with --format {form}", hint="it is spdx-json or cyclonedx-json")
    there = types_of(seen)
    kind = OF_FORMAT[chosen] if chosen else CYCLONEDX if CYCLONEDX in there and SPDX not in there else SPDX
    return predicate_in(statement_of(seen, kind, name), name)


def format_named(said: str) -> str:
    """The format that the user writes so; InvalidValue naming those that there are."""
    if said not in _FORMATS:
        raise InvalidValue(f"unknown format of an SBOM: {said}", hint="it is spdx-json, cyclonedx-json, purl or table")
    return _FORMATS[said]


def _written(data: bytes, output: str | None) -> None:
    if output is None:
        write(data.decode())
        return
    from builda.cli.core.output import write_file

    write_file(output, data.decode())


def _print_table(found: Contents) -> None:
    lines = ["NAME\tVERSION\tTYPE\tLICENCES\tLAYER\tPATH"]
    for one in found.packages:
        package = one.package
        name = f"{package.namespace}/{package.name}" if package.type in ("npm", "golang") else package.name
        licences = _cut(", ".join(package.licences) or "-")
        layer = one.layer.rpartition(":")[2][:12]
        lines.append("\t".join((name.lstrip("/"), package.version, package.type, licences, layer, one.path)))
    print_table(lines)


def _cut(said: str) -> str:
    return said if len(said) <= 40 else said[:39] + "…"
