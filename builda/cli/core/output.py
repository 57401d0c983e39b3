"""Prints results: JSON as Buildah indents it, rows through a template; and writes files that options name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from builda.errors import InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.format.gofuncs import Struct


def print_line(text: str) -> None:
    """One line on stdout."""
    write(text + "\n")


def print_words(text: str) -> None:
    """Lines for people on stdout, in which others may have had a hand: what they quote acts on nothing, and passwords
    of URLs are left out. Results are for programs and go through `print_line`."""
    from builda.display import displayed

    print_line(displayed(text))


def say(text: str, *, to_people_only: bool = False) -> None:
    """One line on stderr, `to_people_only` if that is a terminal."""
    err = sys.stderr
    if err is not None and (err.isatty() or not to_people_only):
        err.write(text + "\n")


def write(text: str) -> None:
    """Text on stdout. On a terminal, what would act on it is shown as escapes; elsewhere the text goes as it is."""
    out = sys.stdout
    if out.isatty():
        from builda.display import visible

        text = visible(text)
    try:
        out.write(text)
    except UnicodeEncodeError:  # halves of surrogate pairs; bytes that came with an argument go as they came
        import re

        out.flush()
        out.buffer.write(re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text).encode(errors="surrogateescape"))


def print_json(value: Any) -> None:
    """`value` as JSON, indented by four spaces."""
    import json

    try:
        text = json.dumps(value, indent=4, ensure_ascii=False) + "\n"
    except RecursionError as error:
        raise InvalidValue("the document is nested too deep to be printed") from error
    if sys.stdout.isatty():
        from builda.display import visible_in_json

        text = visible_in_json(text)
    write(text)


def print_template(template: str, value: Any, *, example: str, in_lines: bool = False) -> None:
    """One value through `template`; a line end only where a person reads it, as Buildah does.

    `example` is a template that this value can fill in. `in_lines`: it ends with a line end, and may have `\\n` and
    `\\t` written out, as with skopeo.
    """
    from builda.cli.format.gotemplate import Template

    if "{{" not in template:
        raise InvalidValue(f"invalid format provided: {template}", hint=_no_template(template, example))
    if in_lines:
        template = _written(template, spaces=" ")
        template += "" if template.endswith("\n") else "\n"
    elif sys.stdout.isatty():
        template += "\n"
    write(Template(template).render(value))


def _no_template(said: str, example: str) -> str:
    return "without --format it is JSON" if said == "json" else f"write a Go template, as in '{example}'"


def print_rows(template: str, rows: Iterable[Struct], headings: Mapping[str, str]) -> None:
    """Each row through `template`, its columns aligned; `table …` puts `headings` above.

    Spaces of the template separate columns as tabs do, which is Buildah's habit.
    """
    from builda.cli.format.gofuncs import Struct
    from builda.cli.format.gotemplate import Template

    with_heading = template.startswith("table")
    template = template.removeprefix("table").strip() if with_heading else template
    parsed = Template(_written(template, spaces="\t"))
    lines = [parsed.render(Struct(headings))] if with_heading else []
    lines += [parsed.render(row) for row in rows]
    print_table(lines)


def print_table(lines: Sequence[str]) -> None:
    """Lines whose cells end in tabs, aligned."""
    from builda.cli.format.table import align

    if lines:
        print_line(align(lines))


def _written(template: str, *, spaces: str) -> str:
    """`template` with `\\n` and `\\t` written out and its spaces outside of actions made `spaces`."""
    import re

    parts = re.split(r"(\{\{.*?\}\})", template, flags=re.DOTALL)
    return "".join(
        part if i % 2 else part.replace("\\t", "\t").replace("\\n", "\n").replace(" ", spaces)
        for i, part in enumerate(parts)
    )


def check_files(*paths: str | None) -> None:
    """Refuse paths that `write_file` could not write to; called before the work whose results they are for."""
    import os

    for path in filter(None, paths):
        if os.path.isdir(path):
            raise InvalidValue(f"file to write is a directory: {path}")
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise NotFound(f"no such file or directory: {path}")


def write_file(path: str | None, text: str) -> None:
    """Make `path`, if it is given, hold exactly `text`; it never holds half of it."""
    if path is not None:
        write_bytes(path, text.encode())


def write_bytes(path: str, data: bytes) -> None:
    """Make `path` hold exactly `data`; it never holds half of it."""
    import os

    from builda.outputfile import replace_whole

    if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, a pipe, a descriptor of the caller
        with open(path, "wb") as file:
            file.write(data)
        return
    replace_whole(path, data)
