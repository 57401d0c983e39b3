"""What is handed to a package index: the wheel's files, and metadata that an index takes."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options], check=True)
    (made,) = directory.glob("*.whl")
    return zipfile.ZipFile(made)


def test_it_has_the_manual_pages(wheel: zipfile.ZipFile) -> None:
    pages = [name.partition("/data/share/man/")[2] for name in wheel.namelist() if "/share/man/" in name]
    assert {"man1/builda.1", "man1/builda-build.1", "man1/builda-bud.1", "man5/Containerfile.in.5"} <= set(pages)


def test_its_metadata_is_valid_and_has_no_dead_link(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Metadata.from_email(wheel.read(name), validate=True)
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.author == "builda developers"
    assert metadata.keywords
    assert metadata.classifiers
    assert metadata.description is not None
    assert re.findall(r"\]\((?!https?://)", metadata.description) == []
    assert "docs/containerfile.md" in metadata.description
