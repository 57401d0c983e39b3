"""The ways in which builda works here: as root or as a user, in each mode and by each isolation, on an empty store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from builda.linux import fuse
from tests.conftest import Builda, add_base
from tests.support import needs
from tests.support.rootless import Rootless, rootless


class Way(NamedTuple):
    """Who runs builda, in which mode, with which further variables."""

    mode: str
    user: bool = False
    environ: Mapping[str, str] = {}  # nobody changes it

    def __str__(self) -> str:
        return "-".join(("user" if self.user else "root", self.mode, *self.environ.values()))


def way(mode: str, *, user: bool = False, driver: str | None = None, isolation: str | None = None) -> Way:
    """A way with this storage driver and this isolation."""
    said = {"BUILDA_STORAGE_DRIVER": driver, "BUILDA_ISOLATION": isolation}
    return Way(mode, user, {name: value for name, value in said.items() if value is not None})


class Workplace(NamedTuple):
    """builda with a base image, localhost/busybox, and a directory for the files of a test."""

    builda: Builda
    place: Path


@contextmanager
def workplace(chosen: Way, place: Path, busybox: Path) -> Iterator[Workplace]:
    """builda that works in a way, in `place` or in a user's home."""
    if chosen.environ.get("BUILDA_STORAGE_DRIVER") == "fuse-overlayfs" and (lacking := fuse.lacking()):
        needs.not_here(lacking)
    environ = {"BUILDA_MODE": chosen.mode, **chosen.environ}
    if not chosen.user:
        yield _made(Builda(place / "store", place / "run", environ), place / "work", busybox)
        return
    with rootless() as user:
        archive = user.home / "busybox.tar"
        archive.write_bytes(busybox.read_bytes())
        builda = Rootless(user.root, user.runroot, {**user.environ, **environ}, user.user, user.home)
        yield _made(builda, user.home / "work", archive)


def _made(builda: Builda, place: Path, image: Path) -> Workplace:
    place.mkdir()
    add_base(builda, image)
    return Workplace(builda, place)
