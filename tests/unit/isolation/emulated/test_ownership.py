"""Owners that are kept aside: their attributes, who may change them, and how stat shows them."""

from __future__ import annotations

import os
import stat
import struct

import pytest

from builda.fs import owners, standin, xattrs
from builda.isolation.emulated.credentials import ALL_CAPABILITIES, CHOWN, NO_ID, Credentials, started
from builda.isolation.emulated.ownership import (
    ATTRIBUTE,
    NAMED,
    Kept,
    check_node,
    given,
    may_access,
    mode_after_chown,
    owner_of_new,
    parse_kept,
    parse_rows,
    row_key,
    rows_value,
)
from builda.isolation.emulated.processes import Processes
from builda.isolation.emulated.statbuffers import LAYOUTS, STATX_SIZE, write_stat, write_statx

ROOT = started(0, 0, (0,), ALL_CAPABILITIES, ALL_CAPABILITIES)
WEB = started(33, 33, (4, 33), ALL_CAPABILITIES, ALL_CAPABILITIES)
FILE, DIRECTORY, DEVICE = 0o100644, 0o040755, 0o020666


@pytest.mark.parametrize(
    "kept",
    [
        Kept(0, 42, 0o640),
        Kept(4294967294, 1, 0),
        Kept(0, 5, 0o620, stat.S_IFCHR, (136, 0)),
        Kept(0, 6, 0o660, stat.S_IFBLK, (259, 70000)),
    ],
)
def test_what_the_store_records_is_what_a_supervisor_reads(kept: Kept) -> None:
    assert (xattrs.STAND_IN, owners.NAMED) == (ATTRIBUTE, NAMED)
    assert parse_kept(kept.value()) == kept
    values = {ATTRIBUTE: kept.value()}
    assert standin.owner_of(values) == (kept.uid, kept.gid)
    assert standin.device_of(values) == ((kept.kind, kept.device) if kept.kind else None)


@pytest.mark.parametrize("value", [b"", b"1:2", b"a:b:c", b"1:2:0644:pipe-1-2", b"1:2:0644:char-1", b"\xff:1:0644"])
def test_a_malformed_attribute_keeps_nothing(value: bytes) -> None:
    assert parse_kept(value) is None


def test_rows_of_a_directory() -> None:
    rows = {row_key(b"link"): (33, 42), row_key(b"fifo"): (0, 4294967294)}
    assert parse_rows(rows_value(rows)) == rows
    assert parse_rows(rows_value(rows)[:-1]) == {row_key(b"link"): (33, 42)}


def test_only_root_gives_files_away() -> None:
    assert given(ROOT, (0, 0), 33, NO_ID) == (33, 0)
    assert given(WEB, (33, 33), NO_ID, 4) == (33, 4)
    assert given(WEB, (33, 33), 33, 33) == (33, 33)
    for owner, uid, gid in (
        ((33, 33), 0, NO_ID),
        ((33, 33), NO_ID, 0),
        ((0, 0), 33, NO_ID),
        ((0, 0), 0, NO_ID),
        ((0, 4), NO_ID, 4),
    ):
        with pytest.raises(PermissionError):
            given(WEB, owner, uid, gid)
    assert given(WEB, (0, 0), NO_ID, NO_ID) == (0, 0)


def test_a_change_of_the_owner_takes_set_id_bits() -> None:
    assert mode_after_chown(ROOT, 0o106755, (0, 0), 0) == 0o100755
    assert mode_after_chown(ROOT, 0o102644, (0, 5), 5) == 0o102644
    assert mode_after_chown(WEB, 0o102644, (WEB.fsuid, 5), 5) == 0o100644
    assert mode_after_chown(ROOT, 0o042755, (0, 5), 5) == 0o042755
    assert mode_after_chown(WEB, 0o106644, (33, 33), 4) == 0o102644
    assert mode_after_chown(WEB, 0o106644, (33, 33), 5) == 0o100644
    assert mode_after_chown(WEB, 0o100644, (0, 0), NO_ID) == 0o100644
    with pytest.raises(PermissionError):
        mode_after_chown(WEB, 0o104644, (0, 0), 0)


def test_nodes_need_a_capability() -> None:
    check_node(ROOT, DEVICE)
    check_node(WEB, stat.S_IFIFO | 0o600)
    with pytest.raises(PermissionError):
        check_node(WEB, DEVICE)


def test_new_files_belong_to_their_maker_or_the_group_of_the_directory() -> None:
    assert owner_of_new(WEB, DIRECTORY, 8) == (33, 33)
    assert owner_of_new(WEB, DIRECTORY | stat.S_ISGID, 8) == (33, 8)


@pytest.mark.parametrize(
    ("who", "mode", "owner", "wanted", "allowed"),
    [
        (ROOT, 0o100000, (33, 33), 6, True),
        (ROOT, 0o100644, (33, 33), 1, False),
        (ROOT, 0o100010, (33, 33), 1, True),
        (ROOT, 0o040000, (33, 33), 7, True),
        (WEB, 0o100640, (33, 0), 6, True),
        (WEB, 0o100640, (0, 4), 4, True),
        (WEB, 0o100640, (0, 4), 2, False),
        (WEB, 0o100077, (33, 33), 4, False),
        (WEB, 0o100644, (0, 0), 4, True),
        (WEB, 0o100755, (0, 0), 2, False),
        (ROOT._replace(ruid=33, rgid=33), 0o100600, (0, 0), 4, False),
    ],
)
def test_access_by_the_bits_of_the_mode(
    who: Credentials, mode: int, owner: tuple[int, int], wanted: int, allowed: bool
) -> None:
    assert may_access(who, mode, owner, wanted, real=who.ruid != who.euid) is allowed


def test_stat_shows_what_is_kept_aside() -> None:
    layout = LAYOUTS["x86_64"]
    data = bytearray(layout.size)
    struct.pack_into("=I", data, layout.mode, 0o100600)
    write_stat(data, layout, Kept(33, 42, 0o640), with_mode=False)
    assert struct.unpack_from("=III", data, 24) == (0o100600, 33, 42)
    write_stat(data, layout, Kept(33, 42, 0o640), with_mode=True)
    assert struct.unpack_from("=I", data, layout.mode) == (0o100640,)
    write_stat(data, layout, Kept(0, 5, 0o620, stat.S_IFBLK, (259, 70000)), with_mode=False)
    assert struct.unpack_from("=I", data, layout.mode) == (0o060640,)
    assert struct.unpack_from("=Q", data, layout.device) == (os.makedev(259, 70000),)


def test_statx_shows_what_is_kept_aside() -> None:
    data = bytearray(STATX_SIZE)
    struct.pack_into("=H", data, 28, 0o100600)
    write_statx(data, Kept(1, 2, 0o644), with_mode=True)
    assert struct.unpack_from("=IIH", data, 20) == (1, 2, 0o100644)
    write_statx(data, Kept(1, 2, 0o644, stat.S_IFCHR, (5, 1)), with_mode=False)
    assert struct.unpack_from("=H", data, 28) == (0o020644,)
    assert struct.unpack_from("=II", data, 128) == (5, 1)


def test_processes_inherit_credentials() -> None:
    processes = Processes(ROOT)
    processes.made(1, 2)
    processes[2] = WEB
    processes.made(2, 3)
    assert (processes[1], processes[2], processes[3]) == (ROOT, WEB, WEB)
    processes.executed(3, 2, ROOT._replace(effective=1 << CHOWN))
    assert (processes[3], processes[2].effective) == (ROOT, 1 << CHOWN)
    processes.ended(2)
    assert (processes[2], len(processes)) == (ROOT, 0)


@pytest.mark.parametrize(
    ("mode", "owner", "asked"), [(0o640, (0, 42), 1), (0o640, (33, 33), 0), (0o604, (0, 0), 0), (0o40070, (0, 33), 1)]
)
def test_an_acl_is_read_if_others_than_the_owner_may_have_rights_by_it(
    mode: int, owner: tuple[int, int], asked: int
) -> None:
    calls = []

    def acl() -> bytes:
        calls.append(1)
        return b""

    may_access(WEB, mode, owner, 4, acl=acl)
    assert len(calls) == asked
