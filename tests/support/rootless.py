"""A real unprivileged user with a range of subordinate ids, and builda run as that user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Builda

REPOSITORY = Path(__file__).parents[2]
USER = "builda-test"
LONELY = "builda-lonely"  # has no ranges


@dataclass(frozen=True)
class Rootless(Builda):
    """builda as an unprivileged user, whose home directory `home` is."""

    user: str = USER
    home: Path = Path("/nonexistent")

    @property
    def command(self) -> list[str]:
        return [*as_user(self.user), *interpreter(), "-m", "builda"]


def as_user(user: str) -> list[str]:
    """The words before a command that make it this user's, with none of our environment but what it is given."""
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all"]


def interpreter() -> list[str]:
    """A Python that everybody may execute: this one, or the system's of the same version with this one's packages."""
    real = Path(sys.executable).resolve()
    if all(os.stat(path).st_mode & 0o001 for path in (real, *real.parents)):
        return [sys.executable]
    return [f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"]


def packages() -> str:
    """The PYTHONPATH that an interpreter from elsewhere needs."""
    return f"{REPOSITORY}:{sysconfig.get_path('purelib')}"


@contextmanager
def rootless(user: str = USER) -> Iterator[Rootless]:
    """builda as `user`, with an empty home directory outside of what only root may enter."""
    _make(user)
    home = Path(tempfile.mkdtemp(prefix="builda-home-", dir="/var/tmp"))
    account = pwd.getpwnam(user)
    os.chown(home, account.pw_uid, account.pw_gid)
    environ = {"HOME": str(home), "PYTHONPATH": packages(), "XDG_RUNTIME_DIR": str(home / "run")}
    (home / "run").mkdir(mode=0o700)
    os.chown(home / "run", account.pw_uid, account.pw_gid)
    try:
        yield Rootless(home / "unused", home / "unused", environ, user, home)
    finally:
        shutil.rmtree(home)


def _make(user: str) -> None:
    """The account exists; with ranges, unless it is the one without."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", user], check=True, capture_output=True)
    if user == LONELY:
        for kind in ("uid", "gid"):
            _drop_ranges(Path(f"/etc/sub{kind}"), user)


def _drop_ranges(path: Path, user: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"{user}:")]
    if kept != lines:
        path.write_text("".join(kept))
