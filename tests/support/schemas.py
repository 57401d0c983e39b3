"""Whether documents fit the schemas of their formats.

The packages that have the schemas take two seconds to import, so only the tests that check a document import them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SOME = "1.34"
NEWEST = "newest"


class NotValid(Exception):
    """A document does not fit its schema; the text says why."""


def check_kubernetes(document: dict[str, Any], version: str = SOME) -> None:
    """NotValid for an object that a version of Kubernetes would refuse, or that has a field which it does not know."""
    import kubernetes_validate

    if version == NEWEST:
        version = kubernetes_validate.latest_version()
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise NotValid(error.message) from error


def check_cyclonedx(document: str) -> None:
    """NotValid for JSON that is no document of CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)
    if fault is not None:
        raise NotValid(str(fault))


def check_spdx(document: str, path: Path) -> None:
    """NotValid for JSON that is no document of SPDX 2.3. It is written to `path`, whose name says the format."""
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    path.write_text(document)
    faults = validate_full_spdx_document(parse_file(str(path)), "SPDX-2.3")
    if faults:
        raise NotValid("\n".join(str(fault) for fault in faults))
