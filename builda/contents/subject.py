"""The image that a document describes, and package URLs of it and of its packages."""

from __future__ import annotations

from datetime import UTC, datetime

from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.contents.facts import Package


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The image that a document describes. `name` is a full name without a tag, `digest` the digest of its manifest."""

    name: str
    digest: str
    architecture: str
    created: float  # seconds: the time that the document says it was made at
    version: str  # of builda

    @property
    def moment(self) -> datetime:
        """`created` in the format of the documents (RFC 3339), in whole seconds."""
        return datetime.fromtimestamp(int(self.created), UTC)

    @property
    def short(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2] or "image"


def purl(package: Package) -> str:
    """The package URL of a package."""
    from packageurl import PackageURL

    return PackageURL(
        package.type, package.namespace or None, package.name, package.version, dict(package.qualifiers) or None
    ).to_string()


def image_purl(subject: Subject) -> str:
    """The package URL of the image itself."""
    from packageurl import PackageURL

    qualifiers = {"arch": subject.architecture}
    if "/" in subject.name:
        qualifiers["repository_url"] = subject.name
    return PackageURL("oci", None, subject.short.lower(), subject.digest, qualifiers).to_string()
