"""A CycloneDX 1.6 document of an image's contents, by the library cyclonedx-python-lib."""

from __future__ import annotations

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
    from cyclonedx.output.json import JsonV1Dot6
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
    )
    bom.metadata.tools.components.add(tool)
    bom.register_dependency(image, components)
    return JsonV1Dot6(bom).output_as_string(indent=2).encode() + b"\n"


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
