"""`bud --report FILE`: a page about a build, however it ends."""

from __future__ import annotations

import fcntl
import os
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root
VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """The texts of a page; an element that is not closed, or closed twice, is a failure."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr"):
            assert tag in self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


CONTAINERFILE = """\
FROM {base} AS first
RUN echo '<script>alert(1)</script>' && echo made > /made
FROM {base}
COPY --from=first /made /copied
COPY file /file
"""


@pytest.fixture
def context(tmp_path: Path, base: str) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    (place / "Containerfile").write_text(CONTAINERFILE.format(base=base))
    (place / "file").write_text("x" * 5000)
    return place


def page(builda: Builda, context: Path, *words: str, check: bool = True) -> Page:
    report = context.parent / "report.html"
    builda.run("bud", "--report", report, *words, context, check=check)
    return Page(report.read_text())


def test_steps_outputs_layers_and_files_are_there(builda: Builda, context: Path) -> None:
    found = page(builda, context, "-t", "named")
    assert found.text.split()[0] == str(context)  # the title
    assert f"built {context}" in found.text
    assert "localhost/named:latest" in found.text
    assert "<script>alert(1)</script>" in found.text  # as text: of the instruction and of what it printed
    assert found.tags.count("script") == 1
    assert "after 1/2" in found.text
    assert "/file" in found.text
    assert found.tags.count("a") == 5


def test_what_is_remembered_and_why_something_is_not(builda: Builda, context: Path) -> None:
    page(builda, context)
    (context / "file").write_text("y")
    with (context / "Containerfile").open("a") as file:
        file.write("RUN true\n")
    found = page(builda, context)
    assert "4 remembered" in found.text
    assert "Done again: inputs.content was " in found.text
    assert found.text.count("Done again: a step before it was done again") == 1
    assert found.attributes["class"].count("bar cached") == 4


def test_a_build_that_fails_has_a_page_too(builda: Builda, context: Path) -> None:
    with (context / "Containerfile").open("a") as file:
        file.write("RUN echo last words && exit 3\n")
    found = page(builda, context, check=False)
    assert "failed" in found.text
    assert "last words" in found.text
    assert "exit status 3" in found.text


def test_what_a_step_waited_for_is_told(builda: Builda, context: Path) -> None:
    mount = "--mount=type=cache,target=/c,sharing=locked"
    (context / "Containerfile").write_text(f"FROM localhost/busybox\nRUN {mount} true\n")
    builda("bud", "-q", context)
    (lock,) = (builda.root / "cache").glob("*.lock")
    found = None
    for seconds in (0.5, 4, 16, 60):  # the build comes to the step within one of these
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            release = threading.Timer(seconds, fcntl.flock, (file, fcntl.LOCK_UN))
            release.start()
            found = page(builda, context, "--no-cache")
            release.join()
        if "waited " in found.text:
            break
    assert found is not None
    assert f"s for cache mount /c, used by process {os.getpid()} (" in found.text
    assert any("s for cache mount /c" in title for title in found.attributes["title"])


def test_the_page_asks_for_nothing(builda: Builda, context: Path) -> None:
    found = page(builda, context)
    assert not {"src", "link", "import"} & {*found.attributes, *found.tags}
    assert all(target.startswith("#") for target in found.attributes["href"])
    assert any("default-src 'none'" in value for value in found.attributes["content"])


def test_standard_output_stays_as_it_is(builda: Builda, context: Path) -> None:
    plain = builda("bud", "--no-cache", "--timestamp", "0", context)
    told = builda("bud", "--no-cache", "--timestamp", "0", "--report", context.parent / "r.html", context)
    assert told == plain


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--report", "/no/such/dir/r.html"), "no such file or directory: /no/such/dir/r.html"),
        (("--report", "/"), "file to write is a directory: /"),
        (("--report", "/dev/null", "--check"), "--report cannot be used with --check"),
        (("--report", "/dev/null", "--print-plan"), "--report cannot be used with --print-plan"),
        (("--report", "/dev/null", "--print-script"), "--report cannot be used with --print-script"),
    ],
)
def test_a_report_that_cannot_be_is_refused_first(
    builda: Builda, context: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in builda.fails("bud", *words, context)
    assert builda("images", "-q") == builda("images", "-q", "--filter", "dangling=false")
