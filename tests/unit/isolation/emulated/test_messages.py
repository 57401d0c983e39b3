"""Ids that a message claims, as a kernel gets them that knows fewer."""

from __future__ import annotations

import random
import struct

import pytest

from builda.isolation.emulated.credentials import started
from builda.isolation.emulated.messages import with_kernels_ids

ROOT = started(0, 0, (), 0xA80425FB, 0xA80425FB)
GAMES = started(5, 60, (), 0, 0)
KERNELS = (1000, 1001)


def claim(uid: int, gid: int) -> bytes:
    return struct.pack("=QiiiIIxxxx", 28, 1, 2, 77, uid, gid)


def rights(*fds: int) -> bytes:
    data = struct.pack(f"={len(fds)}i", *fds)
    return (struct.pack("=Qii", 16 + len(data), 1, 1) + data).ljust((16 + len(data) + 7) & ~7, b"\0")


@pytest.mark.parametrize("before", [b"", rights(3), rights(3, 4, 5)])
@pytest.mark.parametrize("after", [b"", rights(6), claim(*KERNELS)])
def test_a_claim_gets_the_kernels_ids_and_all_else_stays(before: bytes, after: bytes) -> None:
    assert with_kernels_ids(before + claim(0, 0) + after, ROOT, KERNELS) == before + claim(*KERNELS) + after


@pytest.mark.parametrize("ids", [(5, 60), (1000, 60), (5, 1001), KERNELS])
def test_users_claim_their_own_ids_and_those_of_the_kernel(ids: tuple[int, int]) -> None:
    assert with_kernels_ids(claim(*ids), GAMES, KERNELS) == claim(*KERNELS)


@pytest.mark.parametrize("ids", [(0, 0), (5, 0), (6, 60)])
def test_other_ids_need_capabilities(ids: tuple[int, int]) -> None:
    with pytest.raises(PermissionError):
        with_kernels_ids(claim(*ids), GAMES, KERNELS)
    assert with_kernels_ids(claim(*ids), ROOT, KERNELS) == claim(*KERNELS)


def test_what_is_malformed_stays() -> None:
    whole = rights(1) + claim(7, 7)
    for control in (
        whole[:-12],
        b"\xff" * 40,
        bytes(64),
        claim(0xFFFFFFFF, 0),
        struct.pack("=QiiiIIxxxx", 29, 1, 2, 1, 2, 3),
    ):
        assert with_kernels_ids(control, GAMES, KERNELS) == control


def test_random_bytes_keep_their_length() -> None:
    chance = random.Random(5)
    for _ in range(2000):
        parts = [claim(5, 60), rights(1, 2), chance.randbytes(chance.randrange(40))]
        control = b"".join(chance.choices(parts, k=3))[: chance.randrange(100)]
        assert len(with_kernels_ids(control, GAMES._replace(effective=0xA80425FB), KERNELS)) == len(control)
