"""Documents about an image's contents: the formats, and the one way into the libraries that make them.

The libraries are an extra of builda (`builda[sbom]`) and are imported only where a document is made.
"""

from __future__ import annotations

from contextlib import contextmanager

from builda.contents.subject import purl
from builda.errors import Unsupported
from builda.oci.document import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builda.contents.scan import Contents
    from builda.contents.subject import Subject


def document(form: str, subject: Subject, contents: Contents) -> bytes:
    """The document as "spdx-json" or "cyclonedx-json"; Unsupported if its library is not installed."""
    with libraries():
        make: Callable[[Subject, Contents], bytes]
        if form == "spdx-json":
            from builda.contents.spdx import spdx as make
        else:
            from builda.contents.cyclonedx import cyclonedx as make
        return make(subject, contents)


def purl_list(contents: Contents) -> bytes:
    """The package URLs as JSON, as Buildah's --sbom-purl-output has them."""
    with libraries():
        found = sorted({purl(one.package) for one in contents.packages})
    return encode({"image_contents": {"dependencies": found}}) + b"\n"


@contextmanager
def libraries() -> Iterator[None]:
    """Unsupported with the way out where one of the libraries is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("spdx_tools", "cyclonedx", "packageurl", "license_expression"):
            raise
        raise Unsupported(
            f"documents about packages need the Python package {missing}", hint="pip install 'builda[sbom]'"
        ) from error
