"""Working containers: records, names that only one can have, and who runs in them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from builda.errors import AlreadyExists, InUse, InvalidValue, NotFound, StoreUnavailable
from builda.oci.config import Healthcheck, History, ImageConfig
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest
from builda.runoptions import RunOptions
from builda.store.containers import FrozenLayer, WorkingContainer
from builda.store.store import Store
from tests.support.stores import age, another, container, files

DIGEST = Digest.of(b"x")


def reserve(store: Store, name: str, owner: str = "f" * 64) -> Path:
    """A name as a process that was killed before it made the container leaves it."""
    path = Path(store.layout.path("names", name))
    path.write_text(owner)
    return path


def test_record_survives_being_written_and_read(store: Store) -> None:
    made = container(
        store,
        layers=(
            FrozenLayer(snapshot="a" * 32, history=History(created_by="RUN x", extra={"more": [1]})),
            FrozenLayer(
                snapshot="b" * 32,
                history=History(comment="c", empty_layer=True),
                diff_id=DIGEST,
                blob=Descriptor(media_type="m", digest=DIGEST, size=3, annotations={"a": "b"}),
                empty=True,
            ),
        ),
        history=(History(created="2024-01-01T00:00:00Z"),),
        annotations={"key": "value"},
        options=RunOptions(),
        mount_point="/mnt/x",
        created_by="me",
        comment="said",
    )
    assert another(store).container(made.id) == made


def test_every_part_of_a_configuration_survives(store: Store) -> None:
    config = ImageConfig(
        platform=Platform(os="linux", architecture="arm", variant="v7"),
        env=(("A", "1"), ("B", "")),
        entrypoint=("/e",),
        cmd=(),
        volumes=("/v",),
        exposed_ports=("80/tcp",),
        labels={"l": "ü"},
        diff_ids=(DIGEST,),
        healthcheck=Healthcheck(test=("CMD", "x"), interval=5),
        shell=("/bin/bash", "-c"),
        onbuild=("RUN x",),
        extra={"unknown": {"deep": [1]}},
        extra_config={"Unknown": True},
    )
    made = store.update(replace(container(store), config=config))
    assert store.container(made.id).config == config


def test_unnamed_containers_are_numbered(store: Store) -> None:
    assert [container(store).name for _ in range(3)] == [
        "working-container",
        "working-container-1",
        "working-container-2",
    ]


def test_name_can_be_had_once(store: Store) -> None:
    container(store, name="mine")
    before = files(store) | {"snapshots"}
    with pytest.raises(AlreadyExists, match="mine"):
        container(store, name="mine")
    assert {path for path in files(store) if path.startswith(("containers", "names"))} <= before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "a" * 129, "ü", "a\n"])
def test_names_that_make_trouble_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidValue):
        container(store, name=name)


def test_container_is_found_by_name_id_and_beginning_of_its_id(store: Store) -> None:
    made = container(store, name="mine")
    for text in ("mine", made.id, made.id[:12], made.id[:1]):
        assert store.container(text) == made


@pytest.mark.parametrize("text", ["", "nobody", "a\0b", "../x", "0" * 65, "x" * 5000])
def test_what_names_no_container_is_not_found(store: Store, text: str) -> None:
    container(store, name="mine")
    assert store.containers.find(text) is None
    with pytest.raises(NotFound):
        store.container(text)


def test_near_miss_is_suggested(store: Store) -> None:
    container(store, name="webserver")
    with pytest.raises(NotFound) as caught:
        store.container("webservr")
    assert "webserver" in (caught.value.hint or "")


def test_ambiguous_beginning_of_an_id_is_refused(store: Store) -> None:
    ids = sorted(container(store).id for _ in range(20))
    twice = next(one[0] for one, other in pairwise(ids) if one[0] == other[0])
    with pytest.raises(NotFound, match="ambiguous"):
        store.container(twice)


def test_containers_are_listed_oldest_first(store: Store) -> None:
    late, early = container(store, created=9.0), container(store, created=3.0)
    assert [one.id for one in store.containers.iter()] == [early.id, late.id]


def test_half_removed_container_is_not_listed(store: Store) -> None:
    made = container(store, name="mine")
    os.unlink(store.containers.path(made.id, "container.json"))
    assert list(store.containers.iter()) == []
    assert store.containers.find("mine") is None
    assert store.containers.find(made.id[:12]) is None


def test_renamed_container_leaves_its_old_name(store: Store) -> None:
    made = container(store, name="old")
    renamed = store.rename(made, "new")
    assert store.container("new") == renamed
    assert store.containers.find("old") is None
    assert os.listdir(store.layout.path("names")) == ["new"]


def test_rename_to_a_name_that_is_taken_changes_nothing(store: Store) -> None:
    made, other = container(store, name="mine"), container(store, name="taken")
    for name in ("taken", "mine"):
        with pytest.raises(AlreadyExists):
            store.rename(made, name)
    assert store.container("mine") == made
    assert store.container("taken") == other


def test_rename_of_a_container_that_is_gone_takes_no_name(store: Store) -> None:
    made = container(store, name="mine")
    store.remove_container(made)
    with pytest.raises(NotFound):
        store.rename(made, "new")
    assert os.listdir(store.layout.path("names")) == []


def test_second_rename_by_a_stale_record_frees_the_name_in_between(store: Store) -> None:
    made = container(store, name="one")
    store.rename(made, "two")
    store.rename(made, "three")
    assert os.listdir(store.layout.path("names")) == ["three"]


def test_name_of_a_killed_creator_can_be_had_again(store: Store) -> None:
    reserve(store, "mine")
    age(store)
    assert container(store, name="mine").name == "mine"
    assert store.container("mine").name == "mine"


def test_name_whose_creator_may_still_live_is_left_alone(store: Store) -> None:
    store.lease()
    path = reserve(store, "mine")
    with pytest.raises(AlreadyExists):
        container(store, name="mine")
    assert path.read_text() == "f" * 64


def test_removal_takes_no_name_that_somebody_else_got_meanwhile(store: Store) -> None:
    made = container(store, name="mine")
    other = container(store, name="other")
    Path(store.layout.path("names", "mine")).write_text(other.id)
    store.remove_container(made)
    assert os.path.exists(store.layout.path("names", "mine"))


def test_removed_container_leaves_nothing(store: Store) -> None:
    before = files(store)
    made = container(store, name="mine")
    store.remove_container(made)
    assert files(store) == before
    with pytest.raises(NotFound):
        store.remove_container(made)


def test_update_of_a_removed_container_says_so(store: Store) -> None:
    made = container(store)
    store.remove_container(made)
    with pytest.raises(NotFound):
        store.update(made)
    with pytest.raises(NotFound), store.containers.locked(made):
        pass


def test_locked_record_is_the_newest(store: Store) -> None:
    made = container(store)
    store.update(replace(made, comment="newer"))
    with store.containers.locked(made) as current:
        assert current.comment == "newer"


def test_changes_under_the_lock_are_not_lost(store: Store) -> None:
    made = container(store, comment="")

    def add() -> None:
        mine = another(store)
        for _ in range(20):
            with mine.containers.locked(made) as current:
                mine.update(replace(current, comment=f"{current.comment}x"))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.container(made.id).comment == "x" * 80


def test_removal_waits_for_who_changes_the_record(store: Store) -> None:
    made = container(store)
    other = another(store)
    remover = threading.Thread(target=lambda: other.remove_container(made))
    with store.containers.locked(made) as current:
        remover.start()
        time.sleep(0.05)
        store.update(replace(current, comment="kept alive"))
    remover.join()
    assert list(store.containers.iter()) == []
    assert os.listdir(store.layout.path("containers")) == []


def test_holder_of_the_lock_may_remove_the_container(store: Store) -> None:
    made = container(store)
    with store.containers.locked(made) as current:
        store.remove_container(current)
    assert list(store.containers.iter()) == []


@dataclass(frozen=True)
class Sleeper:
    """A live process, and the mark that it runs in a container."""

    process: subprocess.Popen[bytes]
    mark: Path


def runs(store: Store, made: WorkingContainer) -> Sleeper:
    script = """if True:
        import os, sys
        from builda.store import locks
        locks.hold(f"{sys.argv[1]}/run-{os.getpid()}-1-0")
        os.write(1, b".")
        sys.stdin.read()
    """
    command = [sys.executable, "-c", script, store.containers.path(made.id)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    return Sleeper(process, Path(store.containers.path(made.id, f"run-{process.pid}-1-0")))


def test_container_in_which_another_process_runs_is_not_removed(store: Store) -> None:
    made = container(store)
    sleeper = runs(store, made)
    assert store.containers.runners(made) == (sleeper.process.pid,)
    with pytest.raises(InUse, match=str(sleeper.process.pid)):
        store.remove_container(made)
    assert store.container(made.id) == made
    sleeper.process.kill()
    sleeper.process.communicate()
    store.remove_container(made)


def test_running_marks_this_process_for_the_time_of_the_block(store: Store) -> None:
    made = container(store)
    with store.containers.running(made), store.containers.running(made):
        assert set(store.containers.runners(made)) == {os.getpid()}
    assert store.containers.runners(made) == ()


def test_nothing_runs_in_a_container_that_is_gone(store: Store) -> None:
    made = container(store)
    store.remove_container(made)
    with pytest.raises(NotFound), store.containers.running(made):
        pass


def test_record_of_another_version_is_refused(store: Store) -> None:
    made = container(store)
    path = Path(store.containers.path(made.id, "container.json"))
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(StoreUnavailable, match="another version"):
        store.container(made.id)
