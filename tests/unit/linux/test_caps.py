"""Capabilities by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.errors import InvalidValue
from builda.linux.caps import DEFAULT, NAMES, effective_set, from_bits, parse_capability, to_bits


def test_the_default_set_is_dockers() -> None:
    assert to_bits(DEFAULT) == 0xA80425FB


@pytest.mark.parametrize("text", ["sys_admin", "CAP_SYS_ADMIN", "cap_sys_admin", " SYS_ADMIN "])
def test_names_come_in_any_form(text: str) -> None:
    assert parse_capability(text) == "CAP_SYS_ADMIN"


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(InvalidValue, match="SYS_LUNCH"):
        effective_set(DEFAULT, ("SYS_LUNCH",), ())


def test_add_and_drop() -> None:
    assert "CAP_NET_ADMIN" in effective_set(DEFAULT, ("net_admin",), ())
    assert "CAP_CHOWN" not in effective_set(DEFAULT, (), ("CAP_CHOWN",))
    assert effective_set(DEFAULT, ("CHOWN",), ("ALL",)) == ("CAP_CHOWN",)
    assert effective_set(DEFAULT, ("all",), ("CHOWN",)) == NAMES[1:]
    assert effective_set(DEFAULT, (), ("ALL",)) == ()


@pytest.mark.parametrize("name", ["CHOWN", "ALL"])
def test_both_added_and_dropped_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match=name):
        effective_set(DEFAULT, (name,), (name,))


@given(st.sets(st.sampled_from(NAMES)))
def test_bits_and_names_are_the_same(names: set[str]) -> None:
    assert set(from_bits(to_bits(tuple(names)))) == names
