"""Scripts that are executed by descriptors (execveat(2), fexecve(3)): tests/pathcalls/scripts.c."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_traced
from tests.unit.isolation.conftest import answered as answered
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root


@pytest.mark.usefixtures("answered")
def test_an_interpreter_gets_the_path_that_the_kernel_gives(new_box: Callable[..., Any], tmp_path: Path) -> None:
    program = compiled("scripts", tmp_path)
    expected = in_chroot(program, tmp_path / "root")
    assert expected.splitlines()[0] == "script by descriptor 0: [/root/scripts] [show] [/dev/fd/4] [first] the text"
    assert in_traced(program, new_box) == expected
