"""Two builds of the same files at other times and in other directories give one digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.integration.test_bud import make_context
from tests.support.corpus import CASES, Case

pytestmark = [pytest.mark.root, pytest.mark.starts]

OWN = (
    Case("link-into-new", "FROM scratch\nCOPY --link f g /new/place/\n", {"f": "f", "g": "g"}),
    Case("parents", "FROM BASE\nCOPY --parents d/e/f /x/\n", {"d/e/f": "f"}),
    Case("made-on-the-way", "FROM BASE\nCOPY f /a/b/c/\nWORKDIR /w/x\nRUN mkdir y && echo z > y/z\n", {"f": "f"}),
    Case(
        "names",
        "FROM BASE\nRUN (hostname; echo $HOSTNAME; cat /etc/hosts /etc/hostname /run/.containerenv) > /names\n",
    ),
    Case("environment", "FROM BASE\nRUN env | sort > /env; id > /id; pwd > /pwd; umask > /umask\n"),
    Case("heredoc", "FROM BASE\nCOPY <<a <<b /made/\n1\na\n2\nb\nRUN <<x\necho $0 > /0\nx\n"),
    Case(
        "mounts",
        "FROM BASE\nRUN --mount=target=/c --mount=type=cache,target=/k cp /c/f /k/f && cp /k/f /f\n",
        {"f": "f"},
    ),
    Case("stages", "FROM BASE AS a\nRUN echo 1 > /1\nFROM a AS b\nRUN echo 2 > /2\nFROM a\nCOPY --from=b /2 /3/\n"),
)


@pytest.mark.parametrize(
    ("case", "layers"),
    [*((case, "true") for case in (*OWN, *CASES[::6])), *((case, "false") for case in OWN[-3:])],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_place_and_time_do_not_show(builda: Builda, base: str, tmp_path: Path, case: Case, layers: str) -> None:
    made = []
    for place in ("here", "another/longer-name/of-it"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        context = make_context(case, tmp_path / place, base)
        args = ("--no-cache", "--timestamp", "1000000000", *case.args)
        made.append(builda("bud", "-q", *args, context, cwd=tmp_path / place, BUILDAH_LAYERS=layers))
    assert made[0] == made[1]
