"""Step keys: the same for the same work, whoever wrote it and wherever."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from builda.builder.execution.buildoptions import ExecuteOptions
from builda.builder.execution.keys import base_key, canonical, explained, image_key, keyed, run_identity, seen, step_key
from builda.builder.imageoptions import Attest, CommitOptions, RegistryAccess
from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest
from builda.oci.edits import SetEnv, UnsetEnv
from builda.plan import Configure, Copy, FromContainer, FromImage, FromStage, Location, Run, RunMount, RunOptions
from builda.store.drivers import DRIVERS

PARENT = Digest.of(b"base")
RUN = Run(args=("make", "all"), env=(("A", "1"),), mounts=(RunMount(type="cache", target="/c"),))


def test_text_and_place_are_no_part_of_a_key() -> None:
    elsewhere = replace(RUN, text="RUN make all", at=Location("Containerfile", 7))
    assert step_key(PARENT, elsewhere, {}) == step_key(PARENT, RUN, {})


def test_everything_that_is_executed_is_part_of_a_key() -> None:
    changed = (
        replace(RUN, args=("make",)),
        replace(RUN, env=(("A", "2"),)),
        replace(RUN, user="bob"),
        replace(RUN, mounts=()),
        replace(RUN, mounts=(RunMount(type="cache", target="/c", id="x"),)),
        replace(RUN, script=b"#!/bin/sh"),
    )
    keys = {step_key(PARENT, step, {}) for step in (RUN, *changed)}
    assert len(keys) == len(changed) + 1


def test_parent_and_inputs_chain() -> None:
    first = step_key(PARENT, RUN, {})
    assert step_key(first, RUN, {}) != first
    assert step_key(None, RUN, {}) != first
    assert step_key(PARENT, RUN, {"arg:V": "1"}) != step_key(PARENT, RUN, {"arg:V": "2"})
    assert step_key(PARENT, RUN, {"a": "1", "b": "2"}) == step_key(PARENT, RUN, {"b": "2", "a": "1"})


def test_steps_of_different_kinds_never_share_a_key() -> None:
    assert canonical(SetEnv("A", "")) != canonical(UnsetEnv("A"))
    steps = (Copy(sources=(), destination="/"), Configure(), Run(args=()))
    assert len({step_key(PARENT, step, {}) for step in steps}) == len(steps)


def test_an_explanation_is_what_was_hashed_and_can_be_read() -> None:
    text = explained(PARENT, RUN, {"context": "sha256:abc"})
    assert step_key(PARENT, RUN, {"context": "sha256:abc"}) == Digest.of(text)
    assert b'"context":"sha256:abc"' in text
    assert b'"args":["make","all"]' in text


def test_bytes_appear_by_digest_only() -> None:
    assert b"hunter2" not in explained(PARENT, Run(args=("x",), stdin=b"hunter2"), {})


CHANGED: dict[str, object] = {
    "format": "docker",
    "squash": True,
    "timestamp": 1,
    "source_date_epoch": 1,
    "rewrite_timestamp": False,
    "created_annotation": False,
    "identity_label": False,
    "inherit_annotations": False,
    "changes": ("CMD x",),
    "config": b"{}",
    "add_files": ("a:b",),
    "annotations": (("a", "b"),),
    "unset_annotations": ("a",),
    "unset_env": ("A",),
    "unset_labels": ("a",),
    "omit_history": True,
    "compression": "zstd",
    "compression_level": 3,
}
"""Another value than the default for each option that an image depends on."""
WHERE: dict[str, object] = {
    "destination": "x",
    "names": ("x",),
    "manifest": "x",
    "remove": True,
    "attest": Attest(provenance="min"),
    "check": print,
    "access": RegistryAccess(creds="a:hunter2"),
}
"""The same for those that say where it goes."""


@pytest.mark.parametrize("name", [field.name for field in fields(CommitOptions)])
def test_every_option_of_a_commit_counts_unless_it_says_where_the_image_goes(name: str) -> None:
    """A field in neither table is new: decide which one it belongs to, and to `_NOT_IN_IMAGES`."""
    plain = CommitOptions()
    value = CHANGED[name] if name in CHANGED else WHERE[name]
    changed = replace(plain, **{name: value})  # type: ignore[arg-type]  # of any field
    assert value != getattr(plain, name)
    assert (image_key(PARENT, changed, {}) != image_key(PARENT, plain, {})) is (name in CHANGED)


def test_what_else_an_image_says_counts() -> None:
    keys = {image_key(PARENT, CommitOptions(), said) for said in ({}, {"base": "a"}, {"base": "b"})}
    assert len(keys) == 3


def test_a_step_is_remembered_whatever_its_user_namespace_was() -> None:
    assert run_identity(RunOptions(userns="auto", userns_uid_map="0:1:2")) == RunOptions()
    assert (
        run_identity(RunOptions(isolation="oci", runtime="crun", runtime_flags=("x",), terminal=True)) == RunOptions()
    )


RUNS = RunOptions(
    network="none",
    cap_add=("CAP_X",),
    devices=("/dev/null",),
    env=("A=1",),
    hostname="h",
    memory=1 << 20,
    dns=("1.1.1.1",),
    security_opts=("no-new-privileges",),
)
PLATFORM = Platform(os="linux", architecture="amd64")
OPTIONS = ExecuteOptions()


@pytest.mark.parametrize("name", ["network", "cap_add", "devices", "env", "hostname", "memory", "dns", "security_opts"])
def test_what_may_change_files_is_part_of_every_key(name: str) -> None:
    less = replace(RUNS, **{name: getattr(RunOptions(), name)})
    driver = DRIVERS["overlay"]
    keys = {base_key("scratch", PLATFORM, OPTIONS, run, driver) for run in (RUNS, less)}
    assert len(keys) == 2


def test_the_base_and_what_layers_record_are_part_of_every_key() -> None:
    driver = DRIVERS["overlay"]
    first = base_key("scratch", PLATFORM, OPTIONS, RUNS, driver)
    commits = (
        CommitOptions(timestamp=1),
        CommitOptions(source_date_epoch=1),
        CommitOptions(compression="zstd"),
        CommitOptions(compression_level=3),
    )
    others = [
        base_key("sha256:x", PLATFORM, OPTIONS, RUNS, driver),
        base_key("scratch", replace(PLATFORM, architecture="arm64"), OPTIONS, RUNS, driver),
        base_key("scratch", PLATFORM, OPTIONS, RUNS, DRIVERS["fuse-overlayfs"]),
        *(base_key("scratch", PLATFORM, ExecuteOptions(commit=commit), RUNS, driver) for commit in commits),
    ]
    assert len({first, *others}) == len(others) + 1
    assert base_key("scratch", PLATFORM, OPTIONS, RUNS, DRIVERS["plain"]) == first


def test_volumes_of_the_machine_and_proxies_are_no_part_of_a_key() -> None:
    driver = DRIVERS["overlay"]
    with_volumes = replace(RUNS, volumes=("/a:/b",))
    assert base_key("scratch", PLATFORM, OPTIONS, with_volumes, driver) == base_key(
        "scratch", PLATFORM, OPTIONS, RUNS, driver
    )
    step = Run(args=("a",), env=(("https_proxy", "x"), ("NO_PROXY", "y"), ("A", "1")), created_by="z")
    assert keyed(step, ImageConfig(platform=PLATFORM)) == Run(args=("a",), env=(("A", "1"),), working_dir="/")


def test_a_step_is_the_same_whoever_wrote_it() -> None:
    """A Containerfile's step has in its fields what a script's takes from the configuration, and absolute paths."""
    config = ImageConfig(platform=PLATFORM, env=(("A", "1"),), user="bob", working_dir="/w", labels={"l": "x"})
    built = Run(args=("a",), user="bob", working_dir="/w", created_by="RUN a", env=(("B", "2"),))
    assert keyed(built, config) == keyed(Run(args=("a",), env=(("B", "2"),)), config)
    assert keyed(built, config) != keyed(built, replace(config, env=(("A", "2"),)))
    assert keyed(built, config) == keyed(built, replace(config, labels={"l": "y"}))
    copied = Copy(sources=("x/a",), destination="/w/d/", as_containerfile=True, created_by="COPY")
    assert keyed(copied, config) == keyed(Copy(sources=("/elsewhere/./a",), destination="d/"), config)
    assert keyed(copied, config) != keyed(replace(copied, chown="bob"), config)
    assert keyed(replace(copied, extract=True), config) != keyed(replace(copied, as_containerfile=False), config)
    for this, other in ((FromStage(3), FromContainer("c")), (FromImage("a"), FromImage("docker.io/a"))):
        assert keyed(replace(copied, source=this), config) != keyed(copied, config)
        assert keyed(replace(copied, source=this, as_containerfile=False), config) == keyed(
            replace(copied, source=other, as_containerfile=False), config
        )


def test_what_a_command_sees_of_the_configuration_is_among_its_inputs() -> None:
    config = ImageConfig(platform=PLATFORM, hostname="h", volumes=("/v",), cmd=("x",))
    assert seen(RUN, config) == {"hostname": "h", "volumes": ("/v",)}
    assert seen(Copy(sources=(), destination="/"), config) == {}
    assert seen(RUN, replace(config, hostname="", volumes=())) == {}
