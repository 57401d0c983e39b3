"""The pages of builds and sessions, looked at in a real browser, which is started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda, add_base
from tests.integration.test_session import session
from tests.support import browser, needs

pytestmark = [pytest.mark.root, needs.program(*browser.PROGRAMS)]

SCRIPT = """\
set -e
c=$(builda from localhost/busybox)
builda run $c -- sh -c 'echo "<b>printed</b>"; mkdir -p /d/e; head -c 9000 /dev/zero > /d/e/nine; echo > /d/one'
builda commit -q $c made:1
d=$(builda from made:1)
builda run $d -- sh -c 'echo > /more; exit 0'
builda commit -q $d made:2
builda config --label 'x=<script>document.title = "taken"</script>' $c
builda run $c -- false || true
"""
CONTAINERFILE = """\
FROM localhost/busybox AS first
RUN echo of-the-first > /made
FROM localhost/busybox
COPY --from=first /made /copied
RUN echo last words && exit 3
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> dict[str, Path]:
    """A page of a session, of a session by `script trace`, and of a build that fails."""
    place = tmp_path_factory.mktemp("pages")
    builda = Builda(place / "store", place / "run")
    add_base(builda, busybox)
    context = place / ("long" * 20)
    context.mkdir()
    (context / "Containerfile").write_text(CONTAINERFILE)
    found = {name: place / f"{name}.html" for name in ("session", "trace", "build")}
    assert session(builda, SCRIPT, "--report", str(found["session"])).returncode == 0
    builda("script", "trace", "--format", "html", "--output", found["trace"], "bash", "-c", "exit 0")
    builda.run("bud", "--report", found["build"], context, check=False)
    return found


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    profile = tmp_path_factory.mktemp("browser") / "profile"
    profile.mkdir()
    with browser.browser(profile) as found:
        yield found


OPEN = "[...document.querySelectorAll('details')].filter(one => one.open).length"
AT = "document.activeElement.parentNode.id"


@pytest.mark.parametrize("name", ["session", "trace", "build"])
def test_a_page_loads_nothing_else_and_fits_every_window(tab: browser.Tab, pages: dict[str, Path], name: str) -> None:
    tab.open(pages[name])
    assert tab.value("document.title") != "taken"
    dark = "getComputedStyle(document.body).backgroundColor"
    light = tab.value(dark)
    tab.look(scheme="dark")
    tab.wait(f"{dark} !== {light!r}")
    for width in (1200, 400):
        tab.look(width=width)
        tab.wait(f"innerWidth === {width}")
        assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.requests == [pages[name].as_uri()]
    assert tab.faults == []


def test_keys_and_clicks_open_what_a_session_did(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["session"])
    assert tab.value(OPEN) == 0
    tab.press("j")
    tab.press("j")
    assert tab.value(AT) == "s1"
    tab.press("Enter")
    tab.wait(f"{OPEN} === 1")
    assert "<b>printed</b>" in tab.value("document.querySelector('#s1 pre').innerText")
    tab.press("k")
    assert tab.value(AT) == "s0"
    tab.press("o")
    tab.wait(f"{OPEN} === document.querySelectorAll('details').length")
    tab.press("o")
    tab.wait(f"{OPEN} === 0")
    tab.click("a.bar:nth-child(2)")
    tab.wait("document.getElementById('s1').open")


def test_the_layers_of_images_are_a_tree_with_their_biggest_files(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["session"])
    images = "[...document.querySelectorAll('#layers .image')].map(one => one.innerText.split(',')[0])"
    assert tab.value(images) == ["localhost/made:1", "localhost/made:2"]
    depths = (
        "[...document.querySelectorAll('#layers .image')]"
        ".map(one => { let n = 0; while (one = one.parentNode.closest('.branch')) n++; return n; })"
    )
    assert tab.value(depths) == [0, 1]  # the second stands on the first
    tab.press("o")
    files = (
        "[...document.querySelectorAll('#layers tr')].map(one => one.innerText).filter(one => /d\\/|nine/.test(one))"
    )
    assert tab.value(files) == ["9 KB\t2\t/d/", "9 KB\t\te/nine"]


def test_what_a_stage_waited_for_and_why_a_build_failed(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["build"])
    text = tab.value("document.body.innerText")
    assert "after 1/2" in text
    mark = "[...document.querySelectorAll('.bars .wait')].map(one => [one.title, one.offsetWidth > 2])"
    ((about, is_wide),) = tab.value(mark)
    assert about.startswith("waited ")
    assert about.endswith(" s for the end of 1/2")
    assert is_wide
    assert "exit status 3" in text
    tab.press("o")
    assert "last words" in tab.value("document.body.innerText")
