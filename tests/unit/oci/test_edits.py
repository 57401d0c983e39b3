from __future__ import annotations

from functools import reduce

import pytest

from builda.oci import edits
from builda.oci.config import Healthcheck, ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.edits import ConfigEdit, Edited, apply

AMD64 = Platform(os="linux", architecture="amd64")
START = ImageConfig(
    platform=AMD64,
    env=(("A", "1"), ("B", "2")),
    labels={"x": "1", "y": "2"},
    exposed_ports=("80/tcp",),
    volumes=("/v",),
    onbuild=("RUN a",),
    cmd=("sh",),
)


@pytest.mark.parametrize(
    ("edit", "field", "value"),
    [
        (edits.SetEnv("A", "3"), "env", (("A", "3"), ("B", "2"))),
        (edits.SetEnv("C", "3"), "env", (("A", "1"), ("B", "2"), ("C", "3"))),
        (edits.UnsetEnv("A"), "env", (("B", "2"),)),
        (edits.UnsetEnv("Z"), "env", (("A", "1"), ("B", "2"))),
        (edits.UnsetEnv(None), "env", ()),
        (edits.SetLabel("x", "3"), "labels", {"x": "3", "y": "2"}),
        (edits.UnsetLabel("x"), "labels", {"y": "2"}),
        (edits.UnsetLabel(None), "labels", {}),
        (edits.SetEntrypoint(("a",)), "entrypoint", ("a",)),
        (edits.SetEntrypoint(None), "entrypoint", None),
        (edits.SetCmd(None), "cmd", None),
        (edits.SetShell(("bash",)), "shell", ("bash",)),
        (edits.SetText("user", "1000"), "user", "1000"),
        (edits.AddPort("53/udp"), "exposed_ports", ("53/udp", "80/tcp")),
        (edits.RemovePort("80/tcp"), "exposed_ports", ()),
        (edits.RemovePort(None), "exposed_ports", ()),
        (edits.AddVolume("/a"), "volumes", ("/a", "/v")),
        (edits.RemoveVolume("/v"), "volumes", ()),
        (edits.RemoveVolume(None), "volumes", ()),
        (edits.AddOnbuild("RUN b"), "onbuild", ("RUN a", "RUN b")),
        (edits.ClearOnbuild(), "onbuild", ()),
        (edits.SetHealthcheck(Healthcheck(test=("NONE",))), "healthcheck", Healthcheck(test=("NONE",))),
        (edits.SetPlatform(Platform.parse("arm64")), "platform", Platform.parse("arm64")),
    ],
)
def test_an_edit_changes_its_field_and_nothing_else(edit: ConfigEdit, field: str, value: object) -> None:
    changed = apply(START, edit)
    assert getattr(changed, field) == value
    same = [name for name in START.__dataclass_fields__ if name != field]
    assert [getattr(changed, name) for name in same] == [getattr(START, name) for name in same]


def test_entrypoint_leaves_the_command_alone() -> None:
    assert apply(START, edits.SetEntrypoint(("a",))).cmd == ("sh",)


def test_edits_are_performed_in_their_order() -> None:
    order: tuple[ConfigEdit, ...] = (edits.SetEnv("C", "1"), edits.UnsetEnv("A"), edits.SetEnv("A", "9"))
    assert reduce(apply, order, START).env == (("B", "2"), ("C", "1"), ("A", "9"))


def test_edits_that_are_applied_together_say_what_they_say_one_by_one() -> None:
    changes: tuple[ConfigEdit, ...] = (
        edits.SetEnv("C", "1"),
        edits.SetLabel("x", "3"),
        edits.AddPort("53/udp"),
        edits.SetEnv("C", "2"),
        edits.UnsetLabel("y"),
        edits.SetLabel("y", "4"),
        edits.AddOnbuild("RUN b"),
        edits.SetEnv("D", "5"),
    )
    together, stepwise = Edited(START), Edited(START)
    together.change(changes)
    for change in changes:
        stepwise.change((change,))
        stepwise.read()
    assert together.read() == stepwise.read() == reduce(apply, changes, START)
    assert together.read() is together.read()
