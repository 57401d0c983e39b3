"""A store for each test, and what tests ask of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", tmp_path / "run") as opened:
        yield opened
