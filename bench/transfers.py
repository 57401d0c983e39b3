"""Images between places: builda beside Debian's skopeo, with an image of six layers and 500 MB, in memory.

    python -m bench.transfers [WORD ...]      only the rows whose names hold one of the words

A line gives the median of both, their ratio, and builda's peak of resident memory. skopeo's store is
containers-storage; where builda's row begins in its store, skopeo's begins in a layout, the faster of its places.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.measure import Measured, measured
from tests.support.registry import registry

MIB = 1 << 20
LAYERS = 6
NAME = "localhost/measured:1"
PLAIN = "--tls-verify=false"
BOTH = ("--src-tls-verify=false", "--dest-tls-verify=false")


@dataclass(frozen=True, slots=True)
class Image:
    """The image, in a store of builda, in a layout and in a registry."""

    place: Path
    registry: str

    @property
    def layout(self) -> str:
        return f"oci:{self.place}/layout:measured"

    def builda(self, *arguments: str, store: Path | None = None) -> list[str]:
        """A command line of builda on the store that has the image, or on another one."""
        root = store or self.place / "builda"
        program = str(Path(sys.executable).with_name("builda"))
        return [program, "--root", f"{root}/store", "--runroot", f"{root}/run", *arguments]

    def skopeo(self, source: str, destination: str) -> list[str]:
        """A command line of skopeo."""
        return ["skopeo", "--insecure-policy", "copy", "--quiet", *BOTH, source, destination]


Prepare = Callable[[Image, ExitStack], Sequence[str]]
"""Does what is not measured and returns the command that is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    builda: Prepare
    skopeo: Prepare
    rounds: int = 3


def main(words: Sequence[str]) -> None:
    if shutil.which("skopeo") is None:
        raise SystemExit("skopeo is not installed: run tools/install bench")
    chosen = [row for row in ROWS if not words or any(word in row.name for word in words)]
    if not chosen:
        return
    with _image() as image:
        print(f"\n{'what':48} {'builda':>9} {'skopeo':>9} {'ratio':>6} {'memory':>9}")
        for row in chosen:
            print(_line(row, image), flush=True)


def _line(row: Row, image: Image) -> str:
    ours: list[Measured] = []
    theirs: list[Measured] = []
    for _ in range(row.rounds):
        for prepare, found in ((row.builda, ours), (row.skopeo, theirs)):
            with ExitStack() as stack:
                command = prepare(image, stack)
                found.append(measured(command, environ=dict(os.environ)))
            if found[-1].status != 0:
                raise SystemExit(f"{' '.join(command)}: {found[-1].stderr}")
    seconds = [statistics.median(one.seconds for one in found) for found in (ours, theirs)]
    peak = max(one.peak_mib for one in ours)
    return f"{row.name:48} {seconds[0]:8.3f}s {seconds[1]:8.3f}s {seconds[0] / seconds[1]:6.2f} {peak:5.0f} MiB"


@contextmanager
def _image() -> Iterator[Image]:
    with registry() as server, tempfile.TemporaryDirectory(prefix="builda-bench-", dir="/dev/shm") as place:
        image = Image(Path(place), f"docker://{server.address}/measured:1")
        container = _output(image.builda("from", "scratch"))
        for number in range(LAYERS):
            _write(image.place / "file", 84)
            _output(image.builda("copy", "--quiet", container, f"{place}/file", f"/file{number}"))
            _output(image.builda("commit", "--quiet", "--rm", container, NAME))
            container = _output(image.builda("from", NAME))
        (image.place / "file").unlink()
        _output(image.builda("rm", container))
        _output(image.builda("push", "--quiet", NAME, image.layout))
        _output(image.builda("push", "--quiet", PLAIN, NAME, image.registry))
        yield image


def _write(path: Path, mebibytes: int) -> None:
    """A file that is half random and half text, as programs are."""
    with path.open("wb") as file:
        for number in range(mebibytes // 2):
            file.write(os.urandom(MIB))
            file.write((b"line %06d\n" % number * MIB)[:MIB])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()


def _fresh(image: Image, stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=image.place, ignore_cleanup_errors=True)))


def pull(image: Image, stack: ExitStack) -> Sequence[str]:
    return image.builda("pull", "--quiet", PLAIN, image.registry, store=_fresh(image, stack))


def pull_by_skopeo(image: Image, stack: ExitStack) -> Sequence[str]:
    place = _fresh(image, stack)
    stack.callback(subprocess.run, ["umount", "--quiet", f"{place}/store/overlay"], check=False, capture_output=True)
    return image.skopeo(image.registry, f"containers-storage:[overlay@{place}/store+{place}/run]{NAME}")


def push(image: Image, stack: ExitStack) -> Sequence[str]:
    server = stack.enter_context(registry())
    return image.builda("push", "--quiet", PLAIN, NAME, f"docker://{server.address}/measured:1")


def push_by_skopeo(image: Image, stack: ExitStack) -> Sequence[str]:
    server = stack.enter_context(registry())
    return image.skopeo(image.layout, f"docker://{server.address}/measured:1")


def push_again(image: Image, stack: ExitStack) -> Sequence[str]:
    return image.builda("push", "--quiet", PLAIN, NAME, image.registry)


def push_again_by_skopeo(image: Image, stack: ExitStack) -> Sequence[str]:
    return image.skopeo(image.layout, image.registry)


def between(image: Image, stack: ExitStack) -> Sequence[str]:
    server = stack.enter_context(registry())
    return image.builda("image", "copy", "--quiet", *BOTH, image.registry, f"docker://{server.address}/measured:1")


def between_by_skopeo(image: Image, stack: ExitStack) -> Sequence[str]:
    server = stack.enter_context(registry())
    return image.skopeo(image.registry, f"docker://{server.address}/measured:1")


def archive(image: Image, stack: ExitStack) -> Sequence[str]:
    return image.builda("push", "--quiet", NAME, f"oci-archive:{_fresh(image, stack)}/a.tar:{NAME}")


def archive_by_skopeo(image: Image, stack: ExitStack) -> Sequence[str]:
    return image.skopeo(image.layout, f"oci-archive:{_fresh(image, stack)}/a.tar:{NAME}")


def converted(image: Image, stack: ExitStack) -> Sequence[str]:
    end = f"docker-archive:{_fresh(image, stack)}/a.tar:{NAME}"
    return image.builda("image", "copy", "--quiet", image.layout, end)


def converted_by_skopeo(image: Image, stack: ExitStack) -> Sequence[str]:
    return image.skopeo(image.layout, f"docker-archive:{_fresh(image, stack)}/a.tar:{NAME}")


ROWS = (
    Row("registry to store", pull, pull_by_skopeo),
    Row("store to registry, empty", push, push_by_skopeo),
    Row("store to registry, already there", push_again, push_again_by_skopeo, rounds=5),
    Row("registry to registry", between, between_by_skopeo),
    Row("store to oci-archive", archive, archive_by_skopeo),
    Row("oci to docker-archive", converted, converted_by_skopeo),
)


if __name__ == "__main__":
    main(sys.argv[1:])
