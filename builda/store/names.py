"""Names of images: `refs/`, the journal of a change of many names at once, and the names that a session has changed.

Each name is a file. Several of them change in one step by `journal.json`: from the moment it is there, readers take the
names in it from it, and the next writer writes their files. A session keeps what its commands change in files of its
own until it ends, which only its commands read.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from builda import jsontext
from builda.oci.digest import is_sha256
from builda.store import layout
from builda.store.layout import Damaged, Layout
from builda.store.sessions import DIRECTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ATTEMPTS = 50


class Pending:
    """The changes of one session: names, and images that were removed with their last name."""

    def __init__(self, where: Layout, session: str) -> None:
        self._layout = where
        self._session = session

    def _path(self, *parts: str) -> str:
        return self._layout.path(DIRECTORY, self._session, *parts)

    def set(self, name: str, target: str | None) -> None:
        """Point a name at a manifest, or at nothing."""
        body = jsontext.dumps({"name": name, "manifest": target}).encode()
        layout.publish(self._layout, self._path("refs", layout.quote(name)), body)

    def forget(self, name: str) -> None:
        """Drop the session's change of a name, so that the name means the same as outside."""
        layout.unlink(self._layout, self._path("refs", layout.quote(name)))

    def changes(self) -> dict[str, str | None]:
        """All names that were changed, and the digests that they point at."""
        return dict(_read(self._path("refs", file)) for file in layout.iter_names(self._path("refs")))

    def get(self, name: str, default: Callable[[str], str | None]) -> str | None:
        """The digest that a name points at in the session; the result of `default` if the session did not change it."""
        try:
            return _read(self._path("refs", layout.quote(name)))[1]
        except FileNotFoundError:
            return default(name)

    def hide(self, digest: str) -> None:
        """An image is gone for this session, and goes for others when it ends."""
        layout.publish(self._layout, self._path("removed", digest.removeprefix("sha256:")), b"")

    def show(self, digest: str) -> None:
        """An image is there again."""
        layout.unlink(self._layout, self._path("removed", digest.removeprefix("sha256:")))

    def hidden(self) -> frozenset[str]:
        """The digits of manifests that are gone for this session."""
        return frozenset(layout.iter_names(self._path("removed")))


class Names:
    """The names of one store. `report` is told of files that cannot be read; such names count as missing."""

    def __init__(self, where: Layout, report: Callable[[Damaged], None]) -> None:
        self._layout = where
        self._report = report
        self.pending: Pending | None = None
        """The session's own names, if this process works in one."""

    def _ref(self, name: str) -> str:
        return self._layout.path("refs", layout.quote(name))

    @property
    def _journal(self) -> str:
        return self._layout.path("journal.json")

    def target(self, name: str) -> str | None:
        """The digest of the manifest that a name points at; None if there is no such name."""
        return self._target(name) if self.pending is None else self.pending.get(name, self._target)

    def _target(self, name: str) -> str | None:
        journal = self._journaled()
        if name in journal:
            return journal[name]
        found = layout.if_whole(lambda: reference_in(self._ref(name)), self._report)
        return None if found is None else found[1]

    def all(self) -> dict[str, str]:
        """All names, sorted, and the manifest digests they point at."""
        changes = {} if self.pending is None else self.pending.changes()
        return _laid_over(self.published(), changes)

    def published(self) -> dict[str, str]:
        """The names as commands outside of the session see them, all of them as they were at one moment."""
        moment, found = self._moment(), _laid_over(self._files(), self._journaled())
        for _ in range(ATTEMPTS):
            if (now := self._moment()) == moment:
                break
            moment, found = now, _laid_over(self._files(), self._journaled())
        return found

    def _moment(self) -> tuple[int, int]:
        """A pair that differs after names were changed."""
        try:
            journal = os.stat(self._journal).st_ino
        except FileNotFoundError:
            journal = 0
        try:
            return journal, os.stat(self._layout.path("refs")).st_mtime_ns
        except FileNotFoundError:
            return journal, 0

    def _files(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for file_name in layout.iter_names(self._layout.path("refs")):
            read = partial(reference_in, self._layout.path("refs", file_name))
            if (reference := layout.if_whole(read, self._report)) is not None:
                found[reference[0]] = reference[1]
        return found

    def _journaled(self) -> dict[str, str | None]:
        """The names that are being changed."""
        value = layout.if_whole(lambda: layout.read_json(self._journal), self._report) or {}
        return {name: target for name, target in value.items() if target is None or is_sha256(target)}

    def point(self, name: str, target: str, listed: dict[str, str], *, at_once: bool = False) -> None:
        """Point a name at a manifest: for the session only if there is one, unless it is to be seen at once.

        The caller holds the lock of names; `listed` are those of `index.json`.
        """
        if self.pending is not None and not at_once:
            self.pending.set(name, target)
            self.pending.show(target)
            return
        if self.pending is not None:
            self.pending.forget(name)
        body = jsontext.dumps({"name": name, "manifest": target}).encode()
        layout.publish(self._layout, self._ref(name), body, durable=True)
        listed[name] = target

    def take_off(self, name: str, listed: dict[str, str]) -> bool:
        """Remove a name; whether there was one. The caller holds the lock of names."""
        if self.pending is not None:
            was_there = self.target(name) is not None
            self.pending.set(name, None)
            return was_there
        listed.pop(name, None)
        return layout.unlink(self._layout, self._ref(name))

    def publish(self, changes: Mapping[str, str | None], listed: dict[str, str]) -> None:
        """Change all names in one step, which survives a kill and a power cut. The caller holds the lock of names."""
        layout.publish(self._layout, self._journal, jsontext.dumps(changes).encode(), durable=True)
        self.finish()
        for name, target in changes.items():
            listed.pop(name, None)
            if target is not None:
                listed[name] = target

    def finish(self) -> bool:
        """Write the files of names that a journal changes, and remove it; whether there was one.

        The caller holds the lock of names.
        """
        if not os.path.exists(self._journal):
            return False
        for name, target in self._journaled().items():
            if target is None:
                layout.unlink(self._layout, self._ref(name))
            else:
                body = jsontext.dumps({"name": name, "manifest": target}).encode()
                layout.publish(self._layout, self._ref(name), body, durable=True)
        layout.unlink(self._layout, self._journal)
        return True


def _laid_over(below: Mapping[str, str | None], changes: Mapping[str, str | None]) -> dict[str, str]:
    """The names with these changes applied, sorted."""
    merged = {**below, **changes}
    return {name: target for name, target in sorted(merged.items()) if target is not None}


def _read(path: str) -> tuple[str, str | None]:
    """A name of a session, and the digest that it points at, None for one that was taken off."""
    value = layout.read_json(path)
    with suppress(KeyError):
        name, target = value["name"], value["manifest"]
        if isinstance(name, str) and (target is None or is_sha256(target)):
            return name, target
    raise Damaged(path)


def reference_in(path: str) -> tuple[str, str]:
    """A name and the digest that it points at; FileNotFoundError or Damaged."""
    value = layout.read_json(path)
    name, target = value.get("name"), value.get("manifest")
    if not isinstance(name, str) or not isinstance(target, str) or not is_sha256(target):
        raise Damaged(path)
    return name, target
