"""hatchling's hooks: manual pages for the wheel, and the long description without links that lead nowhere.

The pages become share/man of the environment that the wheel is installed in.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"\[([^]]*)\]\((?!https?:)[^)]*\)")


class LongDescription(MetadataHookInterface):
    """Makes it of README.md: a package index does not have the files that relative links lead to."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": RELATIVE_LINK.sub(r"\1", text)}


class ManualPages(BuildHookInterface[Any]):
    """Adds them to the wheel: `initialize` comes before it is written, `finalize` after."""

    _directory: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages and name them as shared data."""
        sys.path.insert(0, str(Path(self.root) / "tools"))
        import manpages

        self._directory = tempfile.TemporaryDirectory(prefix="builda-man-")
        for page in manpages.write(Path(self._directory.name)):
            build_data["shared_data"][str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove them."""
        if self._directory is not None:
            self._directory.cleanup()
