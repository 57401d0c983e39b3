"""How long a fuzz target runs: a few examples in `make test`, its share of the seconds in `make fuzz SECONDS=…`."""

from __future__ import annotations

import time

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Repeat a target, with other examples each time, until its share of the time is over."""
    seconds = pyfuncitem.config.getoption("--fuzz-seconds")
    targets = len(pyfuncitem.session.items)
    until = time.monotonic() + seconds / targets
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    while time.monotonic() < until:
        pyfuncitem.obj(**arguments)
    return (yield)
