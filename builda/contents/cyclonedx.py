"""A CycloneDX 1.6 document of an image's contents, by the library cyclonedx-python-lib."""

from __future__ import annotations

import json
import uuid

from builda.contents.licences import Licensing
from builda.contents.subject import Subject, image_purl, purl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.contents.scan import Contents, Found


def cyclonedx(subject: Subject, contents: Contents) -> bytes:
    """The document as JSON. The same image, contents and time give the same bytes."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.dependency import Dependency
    from packageurl import PackageURL

    licensing = Licensing()
    tool = Component(type=ComponentType.APPLICATION, name="builda", version=subject.version)
    image = Component(
        type=ComponentType.CONTAINER,
        name=subject.name,
        version=subject.digest,
        bom_ref="image",
        purl=PackageURL.from_string(image_purl(subject)),
    )
    components = [_component(at, one, licensing) for at, one in enumerate(contents.packages, 1)]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"builda:{subject.digest}"),
        metadata=BomMetaData(
            component=image,
            timestamp=subject.moment,
            properties=[Property(name="builda:missing", value=str(one)) for one in contents.warnings],
        ),
        components=components,
        dependencies=[Dependency(image.bom_ref, [Dependency(one.bom_ref) for one in components])],
    )
    bom.metadata.tools.components.add(tool)
    return _json(bom)


def _json(bom: Any) -> bytes:
    """The document as version 1.6.

    It is what the library's JsonV1Dot6 writes, but that looks through all components for each one: ten thousand of them
    take it minutes.
    """
    from cyclonedx.schema.schema import SchemaVersion1Dot6

    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
    }
    found = head | json.loads(bom.as_json(view_=SchemaVersion1Dot6))
    return json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n"


def _component(at: int, found: Found, licensing: Licensing) -> Any:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.model.license import LicenseAcknowledgement, LicenseExpression
    from packageurl import PackageURL

    package = found.package
    expression = licensing.expression(package.licences)
    licences = (
        [] if expression is None else [LicenseExpression(expression, acknowledgement=LicenseAcknowledgement.DECLARED)]
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        group=package.namespace or None,
        version=package.version,
        bom_ref=f"package-{at}",
        purl=PackageURL.from_string(purl(package)),
        supplier=OrganizationalEntity(name=package.supplier) if package.supplier else None,
        licenses=licences,
        scope=ComponentScope.EXCLUDED if package.is_declared else None,
        properties=[
            Property(name="builda:layer", value=found.layer),
            Property(name="builda:path", value=found.path),
            Property(name="builda:found-by", value=found.what),
        ],
    )
