"""`image sign`, `verify` and `trust`: signatures of images that are in registries and directories."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line, print_table
from builda.cli.core.verb import verb
from builda.errors import InvalidValue, Unsupported
from builda.oci.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.transfer.locate import Location

_JSON = switch("--json", help="Print JSON.")


@verb(
    argument("images", nargs=-1, required=True),
    switch("--all", "-a", "every", help="Of a list, sign its images, too."),
    text("--directory", "-d", metavar="DIR", help="Put GPG's signatures into this directory (default: registries.d)."),
    shared_options.SIGNING,
    shared_options.REGISTRY,
    shared_options.RETRY,
    _JSON,
    name="image-sign",
    interspersed=True,
    example="builda image sign --sign-by team@example.org registry.example.org/app:1",
)
def sign(session: Session, *, images: tuple[str, ...], every: bool, json: bool, **values: Any) -> None:
    """Sign images that are in a registry or in a directory, and print the digest of each manifest that is signed.

    GPG's signatures go beside the registry, where registries.d says; cosign's go into the registry. A signature that is
    there already is not made again. IMAGE is a name in a registry, docker://… or dir:….
    """
    from builda.builder.remote import SignOptions

    how = SignOptions(every, values.pop("directory"))
    access = shared_options.registry_access(values, session.environ)
    if access.signing is None:
        raise InvalidValue("no key to sign with", hint="--sign-by or --sign-by-sigstore-private-key names it")
    places = [_place(image) for image in images]
    remote = session.builder.context.remote
    found = {str(place): remote.sign(place, access, how) for place in places}
    if json:
        print_json([{"image": name, "digests": [str(one.digest) for one in signed]} for name, signed in found.items()])
        return
    for signed in found.values():
        for one in signed:
            print_line(str(one.digest))


@verb(
    argument("image"),
    text("--key", metavar="FILE", help="Take this key, of GPG or a public key in PEM, instead of the policy."),
    text("--identity", metavar="NAME", help="With --key: the image name that the signature has to have."),
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    text("--signature-policy", metavar="FILE", help="Use this policy.json."),
    _JSON,
    name="image-verify",
    interspersed=True,
    example="builda image verify --key team.gpg registry.example.org/app:1",
)
def verify(session: Session, *, image: str, key: str | None, identity: str | None, json: bool, **values: Any) -> None:
    """Say by the exit status whether an image has the signatures that policy.json wants, and print which these are.

    Of a list that has none, the image for this machine may have them. Nothing but the manifest and the signatures is
    fetched. With --key one signature by that key is wanted: of GPG for this name, or of cosign for this repository.
    """
    from builda.builder.image.pull import machine_platform
    from builda.builder.remote import VerifyOptions

    if identity is not None and key is None:
        raise InvalidValue("--identity needs --key", hint="in policy.json it is signedIdentity")
    platform = shared_options.platform(values) or machine_platform()
    access = shared_options.registry_access(values, session.environ)
    place = _place(image)
    found = session.builder.context.remote.verified(place, access, VerifyOptions(platform, key, identity))
    if json:
        proofs = [proof._asdict() for proof in found.proofs]
        print_json({"image": str(place), "digest": str(found.descriptor.digest), "signatures": proofs})
        return
    for proof in found.proofs:
        print_line(f"{found.descriptor.digest} {proof.type} {proof.key} {proof.identity}")


@verb(
    text("--signature-policy", metavar="FILE", help="Show this policy.json."),
    _JSON,
    name="image-trust",
    interspersed=True,
    example="builda image trust",
)
def trust(session: Session, *, signature_policy: str | None, json: bool) -> None:
    """Show which signatures policy.json requires of which images, and the path of that file."""
    import os
    from pathlib import Path

    from builda.places import Places
    from builda.trust.policy import Policy, listed

    places = Places(session.environ, os.geteuid())
    found = Policy.load(places, None if signature_policy is None else Path(signature_policy))
    rows = [] if found is None else listed(found)
    if json:
        print_json({"file": None if found is None else found.file, "rules": [row._asdict() for row in rows]})
        return
    if found is None:
        print_line("There is no policy.json: every image is accepted.")
        return
    lines = ["TRANSPORT\tSCOPE\tTYPE\tKEYS\tIDENTITY"]
    lines += ["\t".join((row.transport, row.scope, row.type, row.keys, row.identity)) for row in rows]
    print_line(found.file)
    print_table(lines)


def _place(text: str) -> Reference | Location:
    """The place in a registry or directory; Unsupported for others, which have no signatures."""
    from builda.transfer.locate import parse_location

    location = parse_location(text)
    if location is None or location.in_registry:
        return Reference.parse(text if location is None else location.where)
    if location.transport != "dir":
        raise Unsupported(f"images have no signatures there: {text}", hint="write docker://HOST/NAME or dir:PATH")
    return location
