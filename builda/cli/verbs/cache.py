"""`cache ls`, `explain` and `rm`: the steps that the store remembers, of Containerfiles and of scripts."""

from __future__ import annotations

import json as json_module
import os
import time

from builda.cli.core.options import argument, duration, switch
from builda.cli.core.output import print_json, print_line, print_table, print_words
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import InvalidValue, NotFound
from builda.store.steps import Empty, blob_of, snapshot_of
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.oci.digest import Digest
    from builda.store.steps import StepResult

_DIGITS = 12


class _Entry(NamedTuple):
    """A remembered step, and when it was last used, in seconds since the epoch."""

    key: Digest
    result: StepResult
    used: float


@verb(
    switch("--quiet", "-q", help="Print only IDs."),
    switch("--json", help="Print JSON."),
    name="cache-ls",
    interspersed=True,
    example="builda cache ls",
)
def ls(session: Session, *, quiet: bool, json: bool) -> None:
    """List the steps whose results are remembered, the ones used last at the end.

    A step is found again as long as nothing that it depends on has changed; cache explain says what that is.
    """
    entries = sorted(_entries(session), key=lambda entry: (entry.used, str(entry.key)))
    if json:
        print_json([_document(session, entry) for entry in entries])
    elif quiet:
        for entry in entries:
            print_line(entry.key.encoded[:_DIGITS])
    else:
        print_table(["ID\tCREATED\tUSED\tSIZE\tSTEP", *("\t".join(_row(session, entry)) for entry in entries)])


def _row(session: Session, entry: _Entry) -> tuple[str, ...]:
    from builda.cli.format.table import human_age, human_size

    size = _size(session, entry.result)
    now = time.time()
    return (
        entry.key.encoded[:_DIGITS],
        human_age(now - entry.result.created),
        human_age(now - entry.used),
        "-" if size is None else human_size(size),
        _text(entry.result),
    )


@verb(
    argument("step", complete=complete.steps),
    switch("--json", help="Print JSON."),
    name="cache-explain",
    interspersed=True,
    example="builda cache explain 4f1c",
)
def explain(session: Session, *, step: str, json: bool) -> None:
    """Print what the result of a remembered step depends on: the step before it, the step itself, and what it reads.

    STEP is an ID of cache ls, or the beginning of one. To learn why a step was not found, build with --explain-cache,
    or run the script with builda session --explain-cache.
    """
    entry = _one(session, step)
    if json:
        inputs = json_module.loads(entry.result.explained)
        print_json({**_document(session, entry), "explained": inputs})
        return
    print_words(f"{_text(entry.result)}")
    for name, value in _document(session, entry).items():
        if name != "text" and value is not None:
            print_words(f"{name}: {value}")
    for name, value in _flat(json_module.loads(entry.result.explained)):
        print_words(f"  {name}: {value}")


@verb(
    argument("steps", nargs=-1, required=False, complete=complete.steps),
    switch("--all", "-a", "everything", help="Forget all steps."),
    duration("--unused-for", help="Forget the steps that were not used for so long."),
    name="cache-rm",
    interspersed=True,
    example="builda cache rm --unused-for 720h",
)
def rm(session: Session, *, steps: tuple[str, ...], everything: bool, unused_for: int | None) -> None:
    """Forget the results of steps, and print their IDs. builda prune frees the space that nothing else needs.

    The steps behind a forgotten one are performed again with it.
    """
    if sum((bool(steps), everything, unused_for is not None)) != 1:
        raise InvalidValue("name steps, or use --all or --unused-for")
    if steps:
        chosen = [_one(session, step) for step in steps]
    else:
        limit = float("inf") if unused_for is None else time.time() - unused_for / 10**9
        chosen = [entry for entry in _entries(session) if entry.used < limit]
    for entry in chosen:
        session.store.steps.forget(entry.key)
        print_line(entry.key.encoded[:_DIGITS])


def _entries(session: Session) -> list[_Entry]:
    steps = session.store.steps
    return [_Entry(key, result, steps.last_used(key)) for key, result in steps.iter()]


def _one(session: Session, text: str) -> _Entry:
    """The step with this ID; NotFound if there is none, or several."""
    found = [entry for entry in _entries(session) if text and entry.key.encoded.startswith(text)]
    if len(found) > 1:
        raise NotFound(f"ID of a step is ambiguous: {text}", hint="give more of its digits")
    if not found:
        raise NotFound(f"no such step is remembered: {text}", hint="builda cache ls lists those that are")
    return found[0]


def _text(result: StepResult) -> str:
    """The text of the step for users; its kind for results of versions that did not record the text."""
    if result.told.text:
        return " ".join(result.told.text.split())
    kind = json_module.loads(result.explained).get("step", {}).get("type", "")
    return str(kind).lower()


def _document(session: Session, entry: _Entry) -> dict[str, Any]:
    blob = blob_of(entry.result.content)
    return {
        "id": entry.key.encoded,
        "text": _text(entry.result),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.result.created)),
        "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.used)),
        "layer": None if blob is None else str(blob.digest),
        "size": _size(session, entry.result),
        "output": None if entry.result.told.output is None else len(entry.result.told.output),
    }


def _size(session: Session, result: StepResult) -> int | None:
    """Bytes of the layer as it is stored, else about those of its files; None if it changed none, or is gone."""
    if isinstance(result.content, Empty):
        return None
    if (blob := blob_of(result.content)) is not None:
        return blob.size
    snapshot = snapshot_of(result.content)
    if snapshot is None or not os.path.exists(session.store.layout.path("snapshots", snapshot)):
        return None
    return session.store.snapshots.kind_of(snapshot).changed_size(snapshot)


def _flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """The parts of a key, each with its path; without those that say nothing."""
    if isinstance(value, dict):
        return [one for name, item in value.items() for one in _flat(item, f"{prefix}.{name}" if prefix else name)]
    if isinstance(value, list):
        return [one for number, item in enumerate(value) for one in _flat(item, f"{prefix}[{number}]")]
    return [] if value in (None, False, "") else [(prefix, str(value))]
