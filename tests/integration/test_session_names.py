"""In a session names of images change for others when the script has succeeded, all at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.integration.test_session import left, names, session, started

pytestmark = pytest.mark.root

OLD = """
c=$(builda from scratch)
builda config --label made=old $c
builda commit -q $c app:1
builda tag app:1 app:stable
"""
NEW = """
set -e
n=$(builda from scratch)
builda config --label made=new $n
builda commit -q $n app:1
builda tag app:1 app:2
builda untag app:stable app:stable
"""
IMAGES = "builda images --format '{{.Name}}:{{.Tag}}' | sort"


def label(builda: Builda, name: str) -> str:
    found: str = json.loads(builda("inspect", "--type", "image", name))["OCIv1"]["config"]["Labels"]["made"]
    return found


@pytest.fixture
def old(builda: Builda) -> Builda:
    """A store with app:1 and app:stable, which are one image."""
    assert session(builda, OLD, "--no-transaction").returncode == 0
    return builda


def index_of(builda: Builda) -> set[str]:
    found = json.loads((builda.root / "index.json").read_text())["manifests"]
    return {name for one in found if (name := one.get("annotations", {}).get("org.opencontainers.image.ref.name"))}


def test_others_see_the_names_when_the_script_has_succeeded(old: Builda, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    script = f"{NEW} {IMAGES} > {tmp_path}/seen; touch {tmp_path}/there; read _ < {tmp_path}/go"
    process = started(old, script, until=tmp_path / "there")
    assert (tmp_path / "seen").read_text().split() == ["<none>:<none>", "localhost/app:1", "localhost/app:2"]
    assert sorted(names(old).split()) == ["<none>:<none>", "localhost/app:1", "localhost/app:stable"]
    assert label(old, "app:1") == "old"
    assert index_of(old) == {"localhost/app:1", "localhost/app:stable"}
    old("prune")
    (tmp_path / "go").write_text("\n")
    assert process.wait(60) == 0
    assert sorted(names(old).split()) == ["<none>:<none>", "localhost/app:1", "localhost/app:2"]
    assert index_of(old) == {"localhost/app:1", "localhost/app:2"}
    assert label(old, "app:1") == label(old, "app:2") == "new"


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$", "kill -9 $PPID; sleep 9", "builda rmi -f app:1; false"])
def test_the_names_of_a_script_that_fails_stay_as_they_were(old: Builda, end: str) -> None:
    result = session(old, f"{NEW}{end}")
    assert result.returncode != 0
    if "PPID" not in end:
        assert "so these names stay as they were: localhost/app:1 " in result.stderr
    assert sorted(names(old).split()) == ["localhost/app:1", "localhost/app:stable"]
    assert label(old, "app:1") == "old"
    assert left(old) == []


def test_an_image_that_is_removed_in_a_session_is_there_until_it_ends(old: Builda, tmp_path: Path) -> None:
    seen = f"{IMAGES} > {tmp_path}/seen; builda exists app:1; echo $? >> {tmp_path}/seen"
    script = f"builda rmi -f app:stable app:1; {seen}; builda prune; builda --root {old.root} images -q | wc -l"
    result = session(old, f"{script}; env -u BUILDA_SESSION builda inspect -t image app:1 > /dev/null; echo $?")
    assert (tmp_path / "seen").read_text() == "1\n"
    assert result.stdout.split()[-2:] == ["0", "0"], result.stdout + result.stderr
    assert names(old) == ""
    assert left(old) == []


def test_an_image_that_another_command_removes_fails_the_whole_session(old: Builda) -> None:
    remove = "env -u BUILDA_SESSION builda rmi $(builda images -q app:2) > /dev/null"
    result = session(old, f"{NEW} {remove}")
    assert result.returncode == 125
    assert "image was removed meanwhile, so no name was given: localhost/app:" in result.stderr
    assert sorted(names(old).split()) == ["localhost/app:1", "localhost/app:stable"]
    assert left(old) == []


def test_a_session_in_a_session_shares_its_names(old: Builda) -> None:
    inner = f"builda session bash -c '{NEW}'; builda inspect -t image app:2 > /dev/null && exit 5"
    assert session(old, inner).returncode == 5
    assert sorted(names(old).split()) == ["localhost/app:1", "localhost/app:stable"]


def test_without_a_transaction_names_are_seen_at_once(old: Builda) -> None:
    assert session(old, f"{NEW} exit 3", "--no-transaction").returncode == 3
    assert sorted(names(old).split()) == ["<none>:<none>", "localhost/app:1", "localhost/app:2"]


def test_the_last_session_to_end_wins(old: Builda, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    first = started(old, f"{NEW} touch {tmp_path}/there; read _ < {tmp_path}/go", until=tmp_path / "there")
    second = NEW.replace("new", "second").replace("app:2", "app:3")
    assert session(old, second).returncode == 0
    (tmp_path / "go").write_text("\n")
    assert first.wait(60) == 0
    assert {name: label(old, name) for name in ("app:1", "app:2", "app:3")} == {
        "app:1": "new",
        "app:2": "new",
        "app:3": "second",
    }
