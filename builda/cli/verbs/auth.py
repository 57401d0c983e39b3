"""`auth explain`: which credentials builda would send to a registry, and why."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.oci.reference import Reference
    from builda.registry.keyring import Credentials, Look


@verb(
    argument("image", complete=complete.images),
    text("--authfile", metavar="FILE", help="Take credentials from this file.  [env: REGISTRY_AUTH_FILE]"),
    text("--creds", metavar="USER[:PASSWORD]", help="Use these credentials."),
    switch("--json", help="Print JSON."),
    name="auth-explain",
    interspersed=True,
    example="builda auth explain registry.example.org/team/app:1",
)
def explain(session: Session, *, image: str, json: bool, **values: Any) -> None:
    """Say which credentials a pull of IMAGE would use, and where they were looked for.

    No registry is asked and no password is printed. A name without a registry may mean several images, and a registry
    may have mirrors: each of them is explained, in the order in which they would be asked.
    """
    from pathlib import Path

    from builda.registry.registryclient import RegistryClient, RegistryOptions
    from builda.transfer.locate import parse_location

    location = parse_location(image)
    if location is not None and not location.in_registry:
        raise InvalidValue(f"no registry is asked for {image}", hint="write HOST/NAME or docker://HOST/NAME")
    access = shared_options.registry_access(values, session.environ)
    settings = session.settings
    options = RegistryOptions(
        authfile=Path(access.authfile) if access.authfile is not None else None,
        creds=access.creds,
        registries_conf=_path(settings.registries_conf),
        drop_ins=_path(settings.registries_conf_dir),
        short_name_aliases=_path(settings.short_name_aliases),
    )
    with RegistryClient(options, environ=session.environ, uid=settings.uid) as client:
        explained = client.explained(image if location is None else location.where)
    if json:
        print_json([_document(place, looks) for place, looks in explained])
        return
    for place, looks in explained:
        print_line(f"{place}: {_said(looks[-1].credentials if looks else None)}")
        for number, look in enumerate(looks, 1):
            print_line(f"  {number}. {look.place}: {look.outcome}")


def _said(credentials: Credentials | None) -> str:
    if credentials is None:
        return "no credentials"
    return "identity token" if credentials.identity_token else f"password of {credentials.username}"


def _document(place: Reference, looks: tuple[Look, ...]) -> dict[str, object]:
    last = looks[-1] if looks else None
    used = None
    if last is not None and last.credentials is not None:
        used = {
            "kind": "identity token" if last.credentials.identity_token else "password",
            "user": last.credentials.username or None,
            "place": last.place,
            "reason": last.outcome,
        }
    return {
        "image": str(place),
        "registry": place.registry,
        "credentials": used,
        "looked": [{"place": look.place, "outcome": look.outcome} for look in looks],
    }


def _path(value: str | None) -> Path | None:
    from pathlib import Path

    return Path(value) if value is not None else None
