"""The numbers of system calls and the layouts that modes `single` and `traced` use, by architecture."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest

from builda.isolation.child import emulated_calls
from builda.isolation.traced import caught_calls
from builda.linux.ptrace import LAYOUTS

TOKENS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
YOUNGER = {"fchmodat2": 452, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466}
"""Calls that an older libseccomp does not know; their numbers are the same on all architectures."""
TABLES = [
    pytest.param(table[machine], machine, id=f"{name}-{machine}")
    for name, table in (("single", emulated_calls.NUMBERS), ("traced", caught_calls.NUMBERS))
    for machine in TOKENS
]


@pytest.fixture(scope="module")
def number_of() -> Callable[[str, str], int]:
    """The number of a call on an architecture, as libseccomp has it; below 0 if it has none there."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_rewrite
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    return lambda name, machine: int(resolve(TOKENS[machine], name.encode()))


@pytest.mark.parametrize(("table", "machine"), TABLES)
def test_the_numbers_are_the_kernels(table: dict[str, int], machine: str, number_of: Callable[[str, str], int]) -> None:
    expected = {name: number_of(name, machine) for name in table}
    assert table == {name: YOUNGER.get(name, number) if number < 0 else number for name, number in expected.items()}


@pytest.mark.parametrize("numbers", [emulated_calls.NUMBERS, caught_calls.NUMBERS])
def test_no_call_is_forgotten_on_another_architecture(
    numbers: dict[str, dict[str, int]], number_of: Callable[[str, str], int]
) -> None:
    """A call that one table has is in the other too, unless the architecture lacks it."""
    missing = [name for name in numbers["x86_64"] if name not in numbers["aarch64"] and number_of(name, "aarch64") >= 0]
    assert missing == []
    assert set(numbers["aarch64"]) - set(numbers["x86_64"]) == set()


@pytest.mark.parametrize("machine", TOKENS)
def test_architectures_and_registers_are_the_kernels(machine: str) -> None:
    assert emulated_calls.ARCHITECTURES[machine] == caught_calls.ARCHITECTURES[machine] == TOKENS[machine]
    layout = LAYOUTS[machine]
    assert len({*layout.arguments, layout.number, layout.stack}) == 8
    assert max(*layout.arguments, layout.number, layout.result, layout.stack) < layout.count


def test_the_registers_of_aarch64() -> None:
    """struct user_pt_regs: regs[31], sp, pc, pstate. Arguments are x0 to x5, the number x8, the result x0."""
    layout = LAYOUTS["aarch64"]
    assert (layout.count, layout.stack) == (31 + 3, 31)
    assert (layout.arguments, layout.number, layout.result) == ((0, 1, 2, 3, 4, 5), 8, 0)


def test_the_registers_of_x86_64() -> None:
    """struct user_regs_struct: di, si, dx, r10, r8, r9 hold the arguments, orig_ax the number, ax the result."""
    names = "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss".split()
    layout = LAYOUTS["x86_64"]
    assert [names[at] for at in layout.arguments] == ["di", "si", "dx", "r10", "r8", "r9"]
    assert (names[layout.number], names[layout.result], names[layout.stack]) == ("orig_ax", "ax", "sp")
