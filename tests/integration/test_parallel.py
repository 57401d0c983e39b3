"""Many scripts on one store at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Builda

pytestmark = [pytest.mark.root, pytest.mark.starts]


def script(builda: Builda, base: str, number: int) -> str:
    container = builda("from", base)
    builda("run", container, "--", "sh", "-c", f"echo {number} > /number")
    builda("config", "--label", f"number={number}", container)
    builda("commit", "--rm", container, f"localhost/parallel:{number}")
    return container


def test_eight_scripts_on_one_store_all_succeed(builda: Builda, base: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda number: script(builda, base, number), range(8)))
    assert len(set(names)) == 8
    tags = builda("images", "--format", "{{.Tag}}", "localhost/parallel").split()
    assert sorted(tags) == [str(number) for number in range(8)]
    for number in range(8):
        container = builda("from", f"localhost/parallel:{number}")
        assert builda("run", container, "--", "cat", "/number") == str(number)
    assert builda("fsck") == ""


def test_prune_beside_scripts_takes_nothing_from_them(builda: Builda, base: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        scripts = [pool.submit(script, builda, base, number) for number in range(5)]
        while not all(done.done() for done in scripts):
            builda("prune")
        for done in scripts:
            done.result()
    assert builda("fsck") == ""


def test_the_last_of_two_commits_to_one_name_has_it_whole(builda: Builda, base: str) -> None:
    containers = [builda("from", base) for _ in range(4)]
    for number, container in enumerate(containers):
        builda("run", container, "--", "sh", "-c", f"echo {number} > /n")
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda container: builda("commit", container, "localhost/one"), containers))
    named = builda("images", "-q", "--no-trunc", "localhost/one").removeprefix("sha256:")
    assert named in images
    assert builda("fsck") == ""
