"""Whose store it is, and which driver works in it."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from builda.errors import StoreUnavailable
from builda.store.claims import Claim
from builda.store.store import Store


def marker(store: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((store / "builda.json").read_text())
    return found


def opened(tmp_path: Path, claim: Claim | None = None, driver: str | None = None) -> Store:
    return Store.open(tmp_path / "store", tmp_path / "run", claim=claim, driver=driver)


def test_reading_a_store_claims_nothing(tmp_path: Path) -> None:
    assert opened(tmp_path).snapshots.driver.name == "overlay"
    assert marker(tmp_path / "store") == {"format": 1}


def test_the_first_claim_is_written_down(tmp_path: Path) -> None:
    opened(tmp_path, Claim(mode="subid", ids=("0:7:1,1:100:1000",)))
    made = marker(tmp_path / "store")
    assert (made["mode"], made["ids"], made["driver"]) == ("subid", "0:7:1,1:100:1000", "overlay")


def test_other_ids_are_refused_and_those_of_an_unshared_shell_are_not(tmp_path: Path) -> None:
    opened(tmp_path, Claim(mode="subid", ids=("0:7:1,1:100:1000",)))
    opened(tmp_path, Claim(mode="direct", ids=("", "0:7:1,1:100:1000")))
    with pytest.raises(StoreUnavailable, match="made in mode subid, this is mode direct"):
        opened(tmp_path, Claim(mode="direct", ids=("", "0:8:1")))


def test_other_marks_are_refused_unless_no_overlay_is_used(tmp_path: Path) -> None:
    opened(tmp_path, Claim(mode="direct"))
    path = tmp_path / "store/builda.json"
    other = {"trusted": "user", "user": "trusted"}[str(marker(tmp_path / "store")["marks"])]
    path.write_text(json.dumps({**marker(tmp_path / "store"), "marks": other}))
    with pytest.raises(StoreUnavailable, match="made in mode direct"):
        opened(tmp_path, Claim(mode="userns"))
    assert opened(tmp_path, Claim(mode="chroot"), "plain").snapshots.driver.name == "plain"


@pytest.mark.parametrize(
    ("claim", "changed", "said"),
    [
        (Claim("traced", ("aside",)), {"ids": ""}, "of an earlier builda: in mode traced it recorded the owners"),
        (Claim("subid", ("0:7:1,1:100:9",)), {"ids": "0:7:1,1:200:9"}, "made with the ids 0:7:1,1:200:9 (inside:outs"),
        (Claim("direct"), {"marks": "user"}, "made inside a user namespace, this process is outside one"),
    ],
)
def test_a_store_of_the_same_mode_that_cannot_be_used_says_what_differs(
    tmp_path: Path, claim: Claim, changed: dict[str, str], said: str
) -> None:
    opened(tmp_path, claim)
    path = tmp_path / "store/builda.json"
    path.write_text(json.dumps({**marker(tmp_path / "store"), **changed}))
    with pytest.raises(StoreUnavailable, match=re.escape(said)) as refused:
        opened(tmp_path, claim)
    assert "use another --root" in str(refused.value.hint)


def test_the_driver_is_plain_where_an_overlay_cannot_be_written_and_stays_so(tmp_path: Path) -> None:
    tried = []

    def refused(place: str) -> str:
        tried.append(os.listdir(place))
        (Path(place) / "left").mkdir()
        return f"{place} is no good"

    claim = Claim(mode="direct", overlay_refused=refused)
    store = opened(tmp_path, claim)
    assert (store.snapshots.driver.name, store.no_overlay) == ("plain", f"{tmp_path / 'store'} is no good")
    assert (opened(tmp_path, claim).snapshots.driver.name, opened(tmp_path).snapshots.driver.name) == ("plain", "plain")
    assert tried == [[]]
    assert os.listdir(tmp_path / "store/ingest") == []
    assert opened(tmp_path, claim, "overlay").snapshots.driver.name == "overlay"


def test_a_full_disk_says_nothing_of_the_driver(tmp_path: Path) -> None:
    def full(place: str) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        opened(tmp_path, Claim(mode="direct", overlay_refused=full))
    assert "driver" not in marker(tmp_path / "store")
