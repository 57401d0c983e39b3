"""Every field of a Copy counts, and the same for trees and for lists: one that is forgotten somewhere fails here."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from builda.builder.execution.buildoptions import ExecuteOptions
from builda.builder.execution.keys import step_key
from builda.builder.execution.planscript import ScriptRequest, script
from builda.builder.imageoptions import CommitOptions, Inputs
from builda.cli.core.commands import make_group
from builda.errors import BuildaError
from builda.fs.compress import decompressing, sniff
from builda.oci.digest import Digest
from builda.plan import COPY_FLAGS, Copy, InlineFile, Location, NamedContext, Plan, Stage
from tests.unit.builder.conftest import Bench, make_bench

pytestmark = pytest.mark.root

URL, ARCHIVE_URL = "http://host/file.txt", "http://host/a.tar"


class Flag(NamedTuple):
    """A Copy, and what a field of it is set to: the layers of the two must differ."""

    plain: Copy
    value: object


def flag(value: object, *sources: str, destination: str = "/to/", **fields: object) -> Flag:
    return Flag(Copy(sources=sources, destination=destination, **fields), value)  # type: ignore[arg-type]


FLAGS: Mapping[str, Flag] = {
    "sources": flag(("other",), "file"),
    "destination": flag("/elsewhere", "file"),
    "source": flag(NamedContext("named"), "file"),
    "inline": flag((InlineFile("n", b"x"),), "file", timestamp=5),  # else its time is now
    "chown": flag("7:8", "directory"),
    "chmod": flag("640", "directory"),
    "excludes": flag(("*.md",), "directory"),
    "extract": flag(True, "a.tar"),
    "unpack": flag(False, "a.tar", extract=True),
    "parents": flag(True, "directory/below/deep"),
    "link": flag(True, "file", destination="/way/file"),
    "checksum": flag(str(Digest.of(b"not it")), URL),
    "follow_symlinks": flag(False, "link"),
    "allow_wildcard": flag(False, "star*"),
    "allow_empty_wildcard": flag(True, "nothing*"),
    "as_containerfile": flag(True, "file", destination="/new/dir/file", chmod="700"),
    "timestamp": flag(5, "file"),
}
ELSEWHERE: Mapping[str, str] = {
    "keep_git_dir": "decided when the repository is fetched, before a tree or a list is written",
    "created_by": "history",
    "text": "shown",
    "at": "shown",
}
"""Fields that say nothing of files, or are followed before there is a difference between trees and lists."""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    (path / "directory/below").mkdir(parents=True)
    (path / "named").mkdir()
    for name in ("file", "other", "star*", "star-one", "directory/a", "directory/b.md", "directory/below/deep"):
        (path / name).write_text(name)
    (path / "named/file").write_text("of the named context")
    (path / "link").symlink_to("file")
    (path / "links").mkdir()
    (path / "links/way").symlink_to("real")
    (path / "links/real").mkdir()
    (path / "a.tar").write_bytes(archive())
    return path


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("inside")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"in"))
    return out.getvalue()


def outcome(path: Path, context: Path, step: Copy, driver: str | None) -> object:
    """What the layer of a copy holds, or the error: in a container with directories and a link."""
    path.mkdir()
    with ExitStack() as stack:
        bench = make_bench(path, stack, driver)
        bench.remote.urls |= {URL: b"hello", ARCHIVE_URL: archive()}
        inputs = Inputs(context=context, named={"named": context / "named"})
        container = bench.builder.from_image("scratch")
        bench.builder.copy(container, Copy(sources=("links",), destination="/"), inputs=inputs)
        container = bench.builder.freeze(container)
        assert bench.store.snapshots.is_list(container.snapshot) == (driver == "composed")
        try:
            bench.builder.copy(container, step, inputs=inputs)
        except BuildaError as error:
            return type(error), str(error)
        return layer(bench, container.id)


def layer(bench: Bench, container: str) -> list[tuple[object, ...]]:
    """The entries of the container's own layer. Directories that were made have the time of the copy: none here."""
    image = bench.builder.commit(bench.store.container(container), CommitOptions())
    with bench.store.blobs.open(image.manifest.layers[-1].digest) as file:
        compression = sniff(file.read(8))
        file.seek(0)
        reader = decompressing(file, compression)
        data = b"".join(iter(lambda: reader.read(1 << 16), b""))
    rows: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            content = tar.extractfile(entry) if entry.isreg() else None
            held = b"" if content is None else content.read()
            time = None if entry.isdir() else entry.mtime
            rows.append((entry.name, entry.type, entry.mode, entry.uid, entry.gid, time, entry.linkname, held))
    return sorted(rows, key=str)


def test_every_field_of_a_copy_is_here() -> None:
    assert {field.name for field in fields(Copy)} == FLAGS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", FLAGS)
def test_a_field_counts_and_counts_the_same_for_trees_and_lists(name: str, tmp_path: Path, context: Path) -> None:
    plain, value = FLAGS[name]
    changed = replace(plain, **{name: value})  # type: ignore[arg-type]  # the table says which
    without = outcome(tmp_path / "1", context, plain, None)
    with_it = outcome(tmp_path / "2", context, changed, None)
    assert without != with_it
    assert outcome(tmp_path / "3", context, plain, "composed") == without
    assert outcome(tmp_path / "4", context, changed, "composed") == with_it


def test_a_field_is_part_of_the_steps_key_unless_it_is_only_shown() -> None:
    plain = Copy(sources=("a",), destination="/")
    values: dict[str, object] = {name: flag.value for name, flag in FLAGS.items()}
    values |= {"keep_git_dir": True, "created_by": "x", "text": "x", "at": Location("f", 1)}

    def key(step: Copy) -> Digest:
        return step_key(None, step, {})

    same = {name for name, value in values.items() if key(replace(plain, **{name: value})) == key(plain)}  # type: ignore[arg-type]
    assert same == {"text", "at"}


def test_every_flag_of_copy_is_an_option_of_the_verbs_and_of_scripts() -> None:
    group = make_group()
    for verb, keyword in (("copy", "COPY"), ("add", "ADD")):
        command = group.get_command(click.Context(group), verb)
        assert command is not None
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        assert {f"--{name}" for name, row in COPY_FLAGS.items() if keyword in row.of} <= options
    fields_with_flags = {row.field for row in COPY_FLAGS.values()}
    assert fields_with_flags <= {field.name for field in fields(Copy)}
    for name, row in COPY_FLAGS.items():
        value = True if row.field == "keep_git_dir" else FLAGS[row.field].value
        step = Copy(sources=("a",), destination="/b", extract="COPY" not in row.of, **{row.field: value})  # type: ignore[arg-type]
        stage = Stage(name=None, base=None, steps=(step,))
        text = script(Plan(stages=(stage,), target=0), ExecuteOptions(), ScriptRequest(context="."))
        assert f"--{name}" in text
