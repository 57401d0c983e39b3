"""What a test needs of the machine, and what becomes of it without.

Programs are for `tools/install` to provide: without one a test is skipped, and on CI it fails (`tests/conftest.py`).
A right or an ability of the kernel is the machine's: without it a test is skipped on CI as well. Nothing else is.

    @needs.program("skopeo")
    @needs.machine(fuse.lacking())                  # None, or what the kernel or this process's rights lack
    def test_...():
        if ...:
            needs.not_here("the kernel gives no memory cgroup")
"""

from __future__ import annotations

import shutil
from typing import NoReturn

import pytest

SYSTEM_PROGRAMS = "/usr/bin:/usr/sbin:/bin:/sbin"


class NotHere(pytest.skip.Exception):  # type: ignore[name-defined, misc]  # mypy does not see a function's attribute
    """This machine cannot run the test, whatever is installed."""


def not_here(lacking: str) -> NoReturn:
    """Skip the test that calls this, for what the kernel or the rights of this process lack."""
    raise NotHere(lacking)


def machine(lacking: str | None) -> pytest.MarkDecorator:
    """Skip the test for what the kernel or the rights of this process lack, unless that is None."""
    return pytest.mark.machine(lacking)


def program(*names: str) -> pytest.MarkDecorator:
    """Skip the test, or fail it on CI, unless one of these programs is installed."""
    found = any(shutil.which(name) or shutil.which(name, path=SYSTEM_PROGRAMS) for name in names)
    return pytest.mark.skipif(not found, reason=_not_installed(names))


def _not_installed(names: tuple[str, ...]) -> str:
    return f"{names[0]} is not installed" if len(names) == 1 else f"none of these is installed: {', '.join(names)}"
