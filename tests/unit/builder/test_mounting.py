"""mount, umount, remove; and the record that config edits."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from builda.errors import InUse, NotFound
from builda.linux.mount import is_mounted
from builda.oci.config import History
from builda.oci.edits import SetCmd, SetEnv, UnsetEnv
from builda.plan import Configure, Run, RunOptions
from builda.store.containers import WorkingContainer
from tests.unit.builder.conftest import NOW, Bench

pytestmark = pytest.mark.root


def test_a_mount_is_seen_by_everybody_until_it_is_undone(bench: Bench, container: WorkingContainer) -> None:
    place = bench.builder.mount(container)
    assert (place / "bin/busybox").exists()
    assert bench.builder.mount(container) == place
    assert bench.store.container(container.name).mount_point == str(place)
    assert bench.builder.umount(container)
    assert not place.exists()
    assert not bench.builder.umount(container)
    assert bench.store.container(container.name).mount_point is None


def test_what_is_written_through_a_mount_stays(bench: Bench, container: WorkingContainer) -> None:
    (bench.builder.mount(container) / "file").write_text("x")
    bench.builder.umount(container)
    assert bench.upper(container) == ["file"]


def test_a_descriptor_of_the_root_is_mounted_nowhere(bench: Bench, container: WorkingContainer) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with bench.builder.mounted(container) as root:
        assert "busybox" in os.listdir(f"/proc/self/fd/{root}/bin")
        assert Path("/proc/self/mountinfo").read_text() == before


def test_a_mount_that_a_reboot_ended_is_no_obstacle(bench: Bench, container: WorkingContainer) -> None:
    gone = replace(container, mount_point=str(bench.path / "run/mounts/gone"))
    bench.store.update(gone)
    assert bench.shell(gone, "echo works") == "works\n"
    assert not bench.builder.umount(gone)


def test_removing_unmounts(bench: Bench, container: WorkingContainer) -> None:
    place = bench.builder.mount(container)
    bench.builder.remove(bench.store.container(container.id))
    assert not is_mounted(place)
    assert not os.path.exists(bench.store.snapshots.new.path(container.snapshot))
    with pytest.raises(NotFound):
        bench.store.container(container.id)


def test_a_container_with_a_command_running_is_in_use(bench: Bench, container: WorkingContainer) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from pathlib import Path; from builda.store.store import Store\n"
        "s = Store.open(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "with s.containers.running(s.container(sys.argv[3])):\n"
        "    print('running', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, bench.store.root, str(bench.path / "run"), container.id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "running\n"
        with pytest.raises(InUse, match="is running"):
            bench.builder.remove(container)
        other.communicate("")
    bench.builder.remove(container)


def test_commands_in_one_container_wait_for_each_other(bench: Bench, container: WorkingContainer) -> None:
    def append(text: str) -> None:
        script = f"echo {text} >> /log; sleep 0.05; echo {text} >> /log"
        bench.builder.run(container, Run(args=("sh", "-c", script)))

    threads = [threading.Thread(target=append, args=(text,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bench.shell(container, "cat /log").split() in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


def test_config_edits_the_record_in_order(bench: Bench, container: WorkingContainer) -> None:
    edits = (SetEnv("A", "1"), SetEnv("B", "2"), UnsetEnv("A"), SetCmd(("x",)))
    changed = bench.builder.config(container, Configure(edits=edits, set_annotations={"n": "1"}))
    assert changed == bench.store.container(container.id)
    assert (changed.config.env[-1], changed.config.cmd) == (("B", "2"), ("x",))
    assert "A" not in changed.config.environ()
    assert changed.annotations["n"] == "1"
    assert bench.builder.config(changed, Configure(unset_annotations=("n",))).annotations.get("n") is None
    assert bench.builder.config(changed, Configure(unset_annotations=("",))).annotations == {}


def test_config_can_leave_a_trace_in_history(bench: Bench, container: WorkingContainer) -> None:
    changed = bench.builder.config(container, Configure(created_by="ENV A=1", history_comment="why"))
    assert changed.history == (
        History(created="2023-11-14T22:13:20.5Z", created_by="ENV A=1", comment="why", empty_layer=True),
    )
    assert NOW == 1_700_000_000.5


def test_an_old_record_does_not_undo_a_newer_one(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.config(container, Configure(edits=(SetEnv("A", "1"),)))
    bench.builder.config(container, Configure(edits=(SetEnv("B", "2"),)))
    env = bench.store.container(container.id).config.environ()
    assert (env["A"], env["B"]) == ("1", "2")


def test_config_does_not_wait_for_a_command(bench: Bench, container: WorkingContainer) -> None:
    fifo = bench.path / "shared/go"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    options = RunOptions(volumes=(f"{fifo.parent}:/shared",))
    step = Run(args=("sh", "-c", "cat /shared/go > /said"), options=options, created_by="RUN cat")
    command = threading.Thread(target=lambda: bench.builder.run(container, step))
    command.start()
    with fifo.open("w") as go:  # the command has opened its end
        bench.builder.config(container, Configure(edits=(SetEnv("A", "1"),)))
        go.write("go")
    command.join(60)
    after = bench.store.container(container.id)
    assert after.config.environ()["A"] == "1"
    assert [entry.created_by for entry in after.history] == ["RUN cat"]
    assert bench.shell(container, "cat /said") == "go"
