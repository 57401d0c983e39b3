"""The trace of a session: what is asked for, and its files, written when the session has ended."""

from __future__ import annotations

import os
import sys
import time

from builda.cli.core.output import check_files, write_file
from builda.display import without_passwords
from builda.errors import InvalidValue
from builda.scriptlint.secretwords import masked
from builda.session import trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builda.builder.context import Context
    from builda.cli.report.recording import ImageLayers

FORMS = ("text", "json", "html")
STDERR = "-"
"""In place of a file: standard error."""
_ENDINGS = {".json": "json", ".html": "html", ".htm": "html"}
_MOST_IMAGES = 20
"""The most images that a page shows the layers of."""


def form_of(path: str) -> str:
    """The form that the ending of a file's name asks for."""
    return _ENDINGS.get(os.path.splitext(path)[1].lower(), "text")


def wanted(script: Sequence[str], files: Mapping[str, str]) -> trace.Wanted | None:
    """The traces to write of a session that begins now; None without any.

    NotFound or InvalidValue for files that cannot be written.
    """
    if not files:
        return None
    check_files(*(path for path in files if path != STDERR))
    whole = {path if path == STDERR else os.path.abspath(path): form for path, form in files.items()}
    if len(whole) != len(files):
        raise InvalidValue(f"two traces are to be written to one file: {', '.join(files)}")
    words = [without_passwords(word) for word in masked(script)]
    return trace.Wanted(whole, words, time.time(), time.monotonic())


def write(place: str, status: int | None, *, asked: trace.Wanted, images: Sequence[ImageLayers] = ()) -> None:
    """Write the files that were asked for about the session in `place`; `status` is None if it was killed."""
    from builda.cli.report import timeline

    told = timeline.timeline(place, asked, status)
    for path, form in asked.files.items():
        if form == "html":
            from builda.cli.report.page import page

            text = page(timeline.build_of(told, images), timeline.title_of(told.script))
        else:
            text = timeline.json_of(told) if form == "json" else timeline.text_of(told)
        if path == STDERR:
            sys.stderr.write(text)
        else:
            write_file(path, text)


def write_killed(place: str) -> None:
    """Write the traces that a killed session was asked for, up to the moment of its end."""
    asked = trace.wanted(place)
    if asked is not None:
        files = {path: form for path, form in asked.files.items() if path != STDERR}
        write(place, None, asked=asked._replace(files=files))


def images_of(ctx: Context, names: Sequence[str], asked: trace.Wanted) -> tuple[ImageLayers, ...]:
    """The layers of the images that a session gave names to, if a page is to have them."""
    if not asked.keeps_output:
        return ()
    from builda.cli.report.imagelayers import layers_of
    from builda.cli.report.recording import ImageLayers
    from builda.errors import BuildaError

    found = []
    for name in names[:_MOST_IMAGES]:
        try:
            found.append(ImageLayers(name, layers_of(ctx, name)))
        except BuildaError:  # a list of images, an artifact, or a name that was taken off
            continue
    return tuple(found)
