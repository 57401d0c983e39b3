"""Kernels before 6.8, whose overlay takes its layers as one page of options: the child mounts the same there.

The child is the real one; only what it learns of this kernel's `lowerdir+` is said to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import builda
from builda.isolation import begun
from builda.linux.detached import DIRECTORY_PART, FILE_PART
from builda.linux.mount import Mount

pytestmark = pytest.mark.root

OLD = """
import sys
for name, path in (("builda", ""), ("builda.linux", "/linux"), ("builda.isolation", "/isolation"),
                   ("builda.isolation.child", "/isolation/child")):
    sys.modules[name] = module = type(sys)(name)
    module.__path__ = [{package!r} + path]
from builda.isolation.child import enter
from builda.linux import detached
def refuse(*_):
    raise detached.NoLowerPlus(22, "Invalid argument")
detached._configure_overlay = refuse
enter.main()
"""


@pytest.fixture
def old_box(new_box: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs commands on an overlay of two layers."""
    script = tmp_path / "old.py"
    script.write_text(OLD.format(package=os.path.dirname(builda.__file__)))
    monkeypatch.setattr(begun, "_CHILD", str(script))
    box = new_box("native")
    box.sandbox = box.sandbox.__class__(
        **{name: getattr(box.sandbox, name) for name in box.sandbox.__dataclass_fields__}
        | {"rootfs": (overlay(tmp_path / "root", str(box.rootfs)),)}
    )
    return box


def overlay(place: Path, *lower: str, target: str = "/", words: tuple[str, ...] = ()) -> Mount:
    """An overlay with an upper directory in `place`."""
    for name in ("upper", "work"):
        (place / name).mkdir(parents=True)
    options = (f"upperdir={place}/upper", f"workdir={place}/work", "index=off", *words)
    return Mount("overlay", "overlay", target, options, lower)


def test_the_root_is_an_overlay(old_box: Any, tmp_path: Path) -> None:
    assert old_box.shell("echo x > /made; cat /made") == "x\n"
    assert (tmp_path / "root/upper/made").read_text() == "x\n"


@pytest.mark.parametrize(("part", "target"), [(DIRECTORY_PART + "/d/in", "/m"), (FILE_PART + "/d/in/f", "/m")])
@pytest.mark.parametrize("isolation", ["native", "chroot"])
def test_a_part_of_an_overlay_is_mounted(old_box: Any, tmp_path: Path, part: str, target: str, isolation: str) -> None:
    from builda.isolation import isolation_for

    (tmp_path / "lower/d/in").mkdir(parents=True)
    (tmp_path / "lower/d/in/f").write_text("content")
    other = overlay(tmp_path / "other", str(tmp_path / "lower"), target=target, words=(part,))
    old_box.isolation = isolation_for(isolation, state=tmp_path / "state")
    script = "cat /m/f; echo y > /m/new" if part.startswith(DIRECTORY_PART) else "cat /m; echo y > /m"
    assert old_box.shell(script, mounts=(other,), network="host") == "content"
    written = "d/in/new" if part.startswith(DIRECTORY_PART) else "d/in/f"
    assert (tmp_path / "other/upper" / written).read_text() == "y\n"
