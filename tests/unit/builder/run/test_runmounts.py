"""Mounts of a run: what they show, and what they change on the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.builder.imageoptions import Inputs
from builda.plan import Run, RunMount
from builda.store.containers import WorkingContainer
from tests.unit.builder.conftest import Bench

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    for name in ("sub/inner/file", "sub/a", "beside"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    (path / "sub/link").symlink_to("../beside")
    return path


@pytest.mark.parametrize("source", ["sub", "sub/a"])
def test_a_part_of_a_context_is_given_to_the_user_and_nothing_beside_it(
    bench: Bench, container: WorkingContainer, context: Path, source: str
) -> None:
    mount = RunMount(type="bind", source=source, target="/m", read_only=False, options=("U",))
    step = Run(args=("sh", "-ec", "ls -ln /m"), user="7:8", stdin=b"", mounts=(mount,))
    bench.builder.run(container, step, inputs=Inputs(context=context), capture=True)
    owned = {str(path.relative_to(context)) for path in context.rglob("*") if path.lstat().st_uid == 7}
    assert owned == ({"sub", "sub/a", "sub/link", "sub/inner", "sub/inner/file"} if source == "sub" else {"sub/a"})


@pytest.mark.parametrize(("source", "shows"), [("sub/inner", "file"), ("sub/link", "/m"), ("../../sub/a", "/m")])
def test_a_part_of_a_context_is_found_inside_it(
    bench: Bench, container: WorkingContainer, context: Path, source: str, shows: str
) -> None:
    mount = RunMount(type="bind", source=source, target="/m")
    step = Run(args=("sh", "-ec", "ls /m"), stdin=b"", mounts=(mount,))
    bench.builder.run(container, step, inputs=Inputs(context=context), capture=True)
    assert bench.output == f"{shows}\n"
