"""Other engines with stores of their own: Podman, its API service, Buildah and Skopeo."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OtherStore:
    """A store of containers-storage(5) with driver vfs, which works everywhere."""

    root: Path
    runroot: Path

    @property
    def options(self) -> tuple[str, ...]:
        """How podman and buildah are told to use it."""
        return ("--root", str(self.root), "--runroot", str(self.runroot), "--storage-driver", "vfs")

    def named(self, name: str) -> str:
        """An image in it, as skopeo and builda have it written."""
        return f"containers-storage:[vfs@{self.root}+{self.runroot}]{name}"

    def podman(self, *arguments: str) -> str:
        """Standard output of podman on this store."""
        return output("podman", *self.options, *arguments)

    def buildah(self, *arguments: str) -> str:
        """Standard output of buildah on this store."""
        return output("buildah", *self.options, *arguments)


def output(*command: str) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@contextmanager
def other_store() -> Iterator[OtherStore]:
    """An empty store, gone afterwards. Its path is short: podman allows that of the run root 50 characters."""
    with tempfile.TemporaryDirectory(prefix="p") as place:
        yield OtherStore(Path(place, "root"), Path(place, "run"))


@contextmanager
def podman_service(store: OtherStore, address: str | None = None) -> Iterator[str]:
    """Podman's API, which is Docker's too, over a socket; the value of DOCKER_HOST."""
    where = address or f"unix://{store.root.parent}/api.sock"
    assert shutil.which("podman")
    command = ["podman", *store.options, "system", "service", "--time", "0", where]
    with (store.root.parent / "service.log").open("wb") as log:
        service = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(service, where)
        yield where
    finally:
        service.terminate()
        service.wait(30)


def _wait(service: subprocess.Popen[bytes], where: str) -> None:
    from builda.errors import EngineError
    from builda.transfer.engine import Engine

    for _ in range(600):
        try:
            Engine(where).ping()
        except EngineError:
            assert service.poll() is None, "podman's service ended"
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens at {where}, pid {os.getpid()}")
