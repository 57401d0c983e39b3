"""TOML files are read as tomllib reads them, whether they are simple enough to be read without it or not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.errors import BuildaError, InvalidValue, NotFound
from builda.tomlfile import read_toml

SHORT_NAMES = """# Debian installs a file like this
[aliases]
  # a distribution
  "debian" = "docker.io/library/debian"
  "a\tb"="x"   # a comment
"""

PIECES = st.sampled_from(
    [
        "[a]",
        "[a.b]",
        "[[a]]",
        '"k"',
        '"l" ',
        "=",
        " = ",
        '"v"',
        "'v'",
        '""',
        "1",
        "#",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\r",
        "\\",
        '"""',
        "é",
        "\x00",
    ]
)


@given(st.lists(PIECES, max_size=14).map("".join))
def test_any_text_is_read_as_tomllib_reads_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(text.encode())
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(InvalidValue, match="not valid TOML"):
            read_toml(file, "file")
    else:
        assert read_toml(file, "file") == expected


def test_what_distributions_install_needs_no_parser(tmp_path: Path) -> None:
    file = tmp_path / "shortnames.conf"
    file.write_text(SHORT_NAMES)
    assert read_toml(file, "file") == tomllib.loads(SHORT_NAMES)
    code = f"import sys; from builda import tomlfile; tomlfile.read_toml({str(file)!r}, 'file')"
    code += "; print('tomllib' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[a]\n[a]\n", "not valid TOML"),
        (b'[a]\n"k" = "v"\n"k" = "w"\n', "not valid TOML"),
        (b'"k" = "v" x', "not valid TOML"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "x.conf"
    file.write_bytes(content)
    with pytest.raises(InvalidValue, match=message) as caught:
        read_toml(file, "settings")
    assert str(file) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such settings: /no/such"):
        read_toml("/no/such", "settings")
    with pytest.raises(BuildaError, match=f"settings cannot be read, is a directory: {tmp_path}"):
        read_toml(tmp_path, "settings")
