"""An SPDX 2.3 document of an image's contents, by the library spdx-tools."""

from __future__ import annotations

import json

from builda.contents.licences import Licensing
from builda.contents.subject import Subject, image_purl, purl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.contents.scan import Contents, Found

NAMESPACE = "https://spdx.org/spdxdocs/builda-"


def spdx(subject: Subject, contents: Contents) -> bytes:
    """The document as JSON. The same image, contents and time give the same bytes."""
    from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
    from spdx_tools.spdx.model.document import Document

    licensing = Licensing()
    packages = [_image(subject), *(_package(at, one, licensing) for at, one in enumerate(contents.packages, 1))]
    made = Document(
        creation_info=_creation(subject, contents),
        packages=packages,
        relationships=_relationships(packages),
        extracted_licensing_info=_references(licensing),
    )
    converter: Any = DocumentConverter
    return json.dumps(converter().convert(made), indent=2, ensure_ascii=False).encode() + b"\n"


def _creation(subject: Subject, contents: Contents) -> Any:
    from spdx_tools.spdx.model.actor import Actor, ActorType
    from spdx_tools.spdx.model.document import CreationInfo
    from spdx_tools.spdx.model.version import Version

    missing = "\n".join(map(str, contents.warnings))
    return CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=subject.name,
        document_namespace=NAMESPACE + subject.digest.replace(":", "-"),
        creators=[Actor(ActorType.TOOL, f"builda-{subject.version}")],
        created=subject.moment.replace(tzinfo=None),
        license_list_version=Version(3, 20),
        document_comment=f"Packages may be missing:\n{missing}" if missing else None,
    )


def _image(subject: Subject) -> Any:
    from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
    from spdx_tools.spdx.model.package import Package, PackagePurpose
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    return Package(
        spdx_id="SPDXRef-Image",
        name=subject.name,
        version=subject.digest,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, subject.digest.partition(":")[2])],
        external_references=[_reference(image_purl(subject))],
        primary_package_purpose=PackagePurpose.CONTAINER,
    )


def _package(at: int, found: Found, licensing: Licensing) -> Any:
    from spdx_tools.spdx.model.package import Package
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    package = found.package
    expression = licensing.expression(package.licences)
    said = "named by" if package.is_declared else "found by"
    return Package(
        spdx_id=f"SPDXRef-Package-{at}",
        name="/".join(filter(None, (package.namespace, package.name))) if _is_pathed(package.type) else package.name,
        version=package.version,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        supplier=_supplier(package.supplier),
        source_info=f"{said} the {found.what} {found.path} in layer {found.layer}",
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion() if expression is None else licensing.parsed(expression),
        copyright_text=SpdxNoAssertion(),
        external_references=[_reference(purl(package))],
    )


def _is_pathed(kind: str) -> bool:
    """Whether the namespace is a part of the name that people use."""
    return kind in ("npm", "golang")


def _supplier(said: str) -> Any:
    from spdx_tools.spdx.model.actor import Actor, ActorType
    from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion

    name = said.partition("<")[0].replace("(", "").replace(")", "").strip()
    return Actor(ActorType.ORGANIZATION, name) if name else SpdxNoAssertion()


def _reference(locator: str) -> Any:
    from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory

    return ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", locator)


def _relationships(packages: list[Any]) -> list[Any]:
    from spdx_tools.spdx.model.relationship import Relationship, RelationshipType

    image = packages[0].spdx_id
    return [
        Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, image),
        *(Relationship(image, RelationshipType.CONTAINS, one.spdx_id) for one in packages[1:]),
    ]


def _references(licensing: Licensing) -> list[Any]:
    from spdx_tools.spdx.model.extracted_licensing_info import ExtractedLicensingInfo

    return [
        ExtractedLicensingInfo(license_id=name, extracted_text=words, license_name=words)
        for name, words in sorted(licensing.references.items())
    ]
