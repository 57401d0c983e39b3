"""ACLs as values, and the disguise in which a process with one id sets them."""

from __future__ import annotations

import random
import struct

import pytest

from builda.linux import acl

_NO = 0xFFFFFFFF


def _acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("=I", 2) + b"".join(struct.pack("=HHI", *entry) for entry in entries)


def _by_chance(chance: random.Random) -> bytes:
    def named(tag: int) -> list[tuple[int, int, int]]:
        ids = [chance.choice((0, 1, 33, 65534, chance.randrange(_NO))) for _ in range(chance.randrange(4))]
        return [(tag, chance.randrange(8), number) for number in ids]

    last = [(16, chance.randrange(8), _NO), (32, chance.randrange(8), _NO)]
    return _acl((1, chance.randrange(8), _NO), *named(2), (4, chance.randrange(8), _NO), *named(8), *last)


def test_a_disguise_names_one_user_only_and_hides_any_acl() -> None:
    chance = random.Random(1)
    for _ in range(3000):
        value, own = _by_chance(chance), chance.choice((0, 1000))
        assert acl.is_acl(value)
        hidden = acl.disguised(value, own)
        assert acl.is_acl(hidden)
        assert acl.revealed(hidden) == value
        entries = [*struct.iter_unpack("=HHI", hidden[4:])]
        assert {(tag, number) for tag, _, number in entries if tag in (2, 8)} <= {(2, own)}
        assert acl.with_mode(acl.revealed(hidden), 0o751) == acl.revealed(acl.with_mode(hidden, 0o751))
        assert acl.mode_of(hidden) == acl.mode_of(value)


def test_acls_that_tools_make_are_no_disguise() -> None:
    last = ((4, 5, _NO), (16, 7, _NO), (32, 0, _NO))
    tried: list[list[tuple[int, int, int]]] = [
        [],
        [(2, 7, 0)],
        [(2, 7, 0), (2, 6, 33)],
        [(8, 7, 0)],
        [(2, 7, 0), (8, 6, 0)],
    ]
    for named in tried:
        before = [entry for entry in named if entry[0] == 2]
        after = [entry for entry in named if entry[0] == 8]
        value = _acl((1, 7, _NO), *before, last[0], *after, *last[1:])
        assert not acl.is_disguise(value)
        assert acl.revealed(value) == value


def test_digits_that_end_too_soon_hide_nothing() -> None:
    for digits in ((7, 4), (7, 4, 4), (7, 1, 7), (7, *(7,) * 17, 1)):
        value = _acl((1, 7, _NO), *((2, digit, 0) for digit in digits), (4, 5, _NO), (16, 7, _NO), (32, 0, _NO))
        assert acl.revealed(value) == value


def test_ids_and_permissions_that_do_not_exist_make_no_acl() -> None:
    entries: list[tuple[int, int, int]] = [(2, 8, 33), (2, 7, _NO), (8, 7, _NO)]
    for entry in entries:
        value = _acl((1, 7, _NO), *([entry] if entry[0] == 2 else []), (4, 5, _NO), *([entry] if entry[0] == 8 else []))
        assert not acl.is_acl(value + _acl((16, 7, _NO), (32, 0, _NO))[4:])


@pytest.mark.parametrize(
    ("user", "groups", "wanted", "may"),
    [
        (5, (), 6, True),  # by its own entry
        (5, (), 1, False),
        (6, (50,), 4, False),  # an entry for the user counts before those of groups
        (7, (8,), 4, True),  # the file's group
        (7, (8, 50), 2, True),  # one group that gives all of it
        (7, (8, 50), 6, False),  # no group alone gives all of it
        (7, (50,), 1, False),  # the mask
        (7, (51,), 1, False),  # others' rights are not for members
        (7, (), 1, True),
        (7, (), 4, False),
    ],
)
def test_what_an_acl_permits(user: int, groups: tuple[int, ...], wanted: int, may: bool) -> None:
    value = _acl((1, 7, _NO), (2, 7, 5), (2, 0, 6), (4, 4, _NO), (8, 3, 50), (8, 0, 51), (16, 6, _NO), (32, 1, _NO))
    assert acl.permits(value, wanted, user, 8, lambda group: group in groups) is may
