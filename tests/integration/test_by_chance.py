"""Containerfiles without commands, by chance: of lists and of trees they make the same image, or the same error."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.images import image, write_layout

pytestmark = [pytest.mark.root, pytest.mark.long]

PASSWD = b"root:x:0:0::/:/bin/sh\nu:x:5:6::/:/bin/sh\n"


class Chance:
    """What is built, all of it following from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def path(self) -> str:
        return "/".join(self.random.choice("abcd") for _ in range(self.random.choice((1, 1, 2, 2, 3))))

    def archive(self, count: int, kinds: str) -> bytes:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for _ in range(count):
                kind, path = self.random.choice(kinds.split()), self.path()
                head, slash, name = path.rpartition("/")
                member = tarfile.TarInfo({"white": f"{head}{slash}.wh.{name}"}.get(kind, path))
                member.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(kind, tarfile.REGTYPE)
                member.linkname = self.random.choice(("", "/", "../")) + self.path() if kind == "link" else ""
                member.mode = self.random.choice((0o644, 0o755, 0o4755))
                member.uid, member.gid = self.random.randrange(3), self.random.randrange(3)
                content = b"x" * self.random.randrange(3) if kind == "file" else b""
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return data.getvalue()

    def base(self) -> tuple[bytes, ...]:
        """The layers of a base image: with a user, and something else."""
        account = io.BytesIO()
        with tarfile.open(fileobj=account, mode="w") as archive:
            member = tarfile.TarInfo("etc/passwd")
            member.size = len(PASSWD)
            archive.addfile(member, io.BytesIO(PASSWD))
        count = self.random.choice((1, 2))
        return (account.getvalue(), *(self.archive(6, "file file dir link white") for _ in range(count)))

    def context(self, directory: Path) -> None:
        directory.mkdir()
        for _ in range(self.random.randrange(3, 12)):
            self.file(directory, directory / self.path())
        for path in directory.rglob("*"):
            os.utime(path, (1000, 1000), follow_symlinks=False)

    def file(self, top: Path, path: Path) -> None:
        """Make something there, if there is room for it."""
        kind = self.random.choice("file file file dir link hard archive".split())
        files = sorted(found for found in top.rglob("*") if found.is_file() and not found.is_symlink())
        above = [parent for parent in path.parents if parent.is_relative_to(top)]
        if os.path.lexists(path) or any(os.path.lexists(parent) and not parent.is_dir() for parent in above):
            return
        if any(parent.is_symlink() for parent in above):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_bytes(self.random.randbytes(3))
            path.chmod(self.random.choice((0o644, 0o755, 0o4711, 0o600)))
        elif kind == "dir":
            path.mkdir(self.random.choice((0o755, 0o700)))
        elif kind == "link":
            path.symlink_to(self.random.choice(("", "/", "../")) + self.path())
        elif kind == "hard" and files:
            os.link(self.random.choice(files), path)
        elif kind == "archive":
            path.with_suffix(".tar").write_bytes(self.archive(3, "file dir"))

    def lines(self, bases: tuple[str, ...]) -> list[str]:
        found = []
        for stage in range(self.random.choice((1, 1, 2, 3))):
            stages = tuple(f"s{number}" for number in range(stage))
            found.append(f"FROM {self.random.choice((*bases, 'scratch', *stages))} AS s{stage}")
            found += [self.line((*stages, *bases)) for _ in range(self.random.randrange(1, 5))]
        return found

    def line(self, others: tuple[str, ...]) -> str:
        source = " ".join(self.source() for _ in range(self.random.choice((1, 1, 1, 2))))
        slash = self.random.choice(("", "/"))
        destination = self.random.choice(("/", f"/{self.path()}{slash}", f"{self.path()}{slash}", ".", "./"))
        match self.random.choice("copy copy copy copy from from add workdir user".split()):
            case "workdir":
                return f"WORKDIR {slash}{self.path()}"
            case "user":
                return f"USER {self.random.choice(('u', '5', 'root', '5:7'))}"
            case "add":
                return f"ADD {self.flags()} {self.random.choice(('*.tar', 'a.tar', source))} {destination}"
            case "from":
                return f"COPY --from={self.random.choice(others)} {self.flags()} {source} {destination}"
            case _:
                return f"COPY {self.flags()} {source} {destination}"

    def source(self) -> str:
        path = self.path()
        return self.random.choice((path, path, f"{path}/", f"{path}/*", ".", "*", "a*/*"))

    def flags(self) -> str:
        possible = ("--chown=1:2", "--chown=u:3", "--chmod=4711", "--chmod=go-r", "--link", "--parents", "--exclude=a")
        return " ".join(flag for flag in possible if self.random.random() < 0.1)


def bases(chance: Chance, stores: tuple[Builda, Builda], place: Path) -> tuple[str, ...]:
    """Images that both stores have, and can unpack."""
    found: list[str] = []
    for number in range(40):
        layout = write_layout(place / f"layout-{number}", image(*chance.base()))
        for store in stores:
            store("tag", store("pull", "-q", f"oci:{layout}:test"), f"localhost/base-{number}")
        tried = stores[1].run("--storage-driver", "overlay", "from", f"localhost/base-{number}", check=False)
        if tried.returncode == 0:
            found.append(f"localhost/base-{number}")
        if len(found) == 5:
            break
    return tuple(found)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.timeout(1200)
def test_an_image_is_the_same_of_lists_and_of_trees(seed: int, tmp_path: Path) -> None:
    chance = Chance(seed)
    stores = Builda(tmp_path / "lists", tmp_path / "run1"), Builda(tmp_path / "trees", tmp_path / "run2")
    known = bases(chance, stores, tmp_path)
    built = 0
    for _ in range(25):
        shutil.rmtree(tmp_path / "context", ignore_errors=True)
        chance.context(tmp_path / "context")
        lines = chance.lines(known)
        of_lists = of_trees = None
        while lines:
            (tmp_path / "Containerfile").write_text("\n".join(lines))
            build = ("bud", "-q", "--timestamp", "0", "--no-cache", "-f", tmp_path / "Containerfile")
            of_lists = stores[0].run(*build, tmp_path / "context", check=False)
            of_trees = stores[1].run("--storage-driver", "overlay", *build, tmp_path / "context", check=False)
            failed = re.search(r"^Error: \S+?:(\d+): .*", of_lists.stderr, re.MULTILINE)
            assert failed is None or failed[0] in of_trees.stderr, "\n".join(lines)
            assert of_lists.returncode == of_trees.returncode, "\n".join(lines)
            if failed is None:
                break
            del lines[int(failed[1]) - 1 :]  # the rest of it may be built
        if lines and of_lists and of_trees:
            shown = [
                store("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", made.stdout.strip())
                for store, made in zip(stores, (of_lists, of_trees), strict=True)
            ]
            assert shown[0] == shown[1], "\n".join(lines)
            built += 1
    assert built > 10
