"""dockerfile-parse without logging: nothing that it logs is lost, and logging is the real one for all others."""

from __future__ import annotations

import subprocess
import sys


def output(code: str) -> str:
    """What Python code says on both streams, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


SPLIT = """
import sys
from io import BytesIO
from builda.frontend.splitter import parser_class
given = parser_class()(fileobj=BytesIO(b"FROM x\\nRUN a"), env_replace=False)
print([entry["value"] for entry in given.structure], "logging" in sys.modules)
"""


def test_splitting_loads_no_logging() -> None:
    assert output(SPLIT) == "['x', 'a'] False"


def test_logging_is_the_real_one_afterwards() -> None:
    check = (
        "import logging; print(logging.__spec__.name, logging.INFO, logging.getLogger('a') is logging.getLogger('a'))"
    )
    assert output(SPLIT + check).splitlines()[1] == "logging 20 True"


def test_what_fails_is_logged() -> None:
    """The message of a file that cannot be read, by the handler of last resort; then by one that was asked for."""
    fails = """
class Unreadable(BytesIO):
    def readlines(self, *args):
        raise OSError("no reading here")
given = parser_class()(fileobj=Unreadable(), env_replace=False)
try:
    given.lines
except OSError as error:
    print("raised:", error)
"""
    said = output(SPLIT + fails)
    assert "raised: no reading here" in said
    assert "Couldn't retrieve lines from dockerfile" in said
    configured = "import logging; logging.basicConfig(format='%(levelname)s of %(name)s: %(message)s')\n"
    assert "ERROR of dockerfile_parse.parser: Couldn't retrieve" in output(SPLIT + configured + fails)
    assert "ERROR of dockerfile_parse.parser: Couldn't retrieve" in output(configured + SPLIT + fails)


def test_other_things_of_logging_are_there_while_it_is_stood_in_for() -> None:
    code = """
import sys
from builda.frontend import splitter
sys.modules["logging"] = standing_in = splitter._Logging("logging")
from logging import NullHandler, getLogger
import logging
getLogger("a").addHandler(NullHandler())
print(logging is not standing_in, standing_in.WARNING, len(logging.getLogger("a").handlers))
"""
    assert output(code) == "True 30 1"
