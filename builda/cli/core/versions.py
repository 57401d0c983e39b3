"""The texts of `--version` and `version`."""

from __future__ import annotations

from builda import __version__

IMAGE_SPEC = "1.1.1"
RUNTIME_SPEC = "1.2.0"


def version_line() -> str:
    """One line, in the form of Buildah's."""
    return f"builda version {__version__} (image-spec {IMAGE_SPEC}, runtime-spec {RUNTIME_SPEC})"
