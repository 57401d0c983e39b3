"""`image scan`: keys, tokens and passwords in an image, wherever it is."""

from __future__ import annotations

from builda.cli.building import scanning
from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch
from builda.cli.core.output import print_json, print_words
from builda.cli.core.verb import verb
from builda.cli.guide import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session


@verb(
    argument("image", complete=complete.images),
    switch("--json", help="Print JSON."),
    switch("--fail", help="End with status 1 if there is a secret."),
    scanning.IGNORE,
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-scan",
    interspersed=True,
    example="builda image scan --fail app:1",
)
def scan(session: Session, *, image: str, json: bool, fail: bool, scan_ignore: str | None, **values: Any) -> None:
    """Look for private keys, tokens and passwords in an image: in its layers, configuration and history.

    IMAGE is one of the store, or any place written with its transport; of a list it is the image for this machine, or
    for the one that --platform names. Each secret is a line with its place and kind,
    never with the secret. Files that a later layer deletes still ship, and are found. Archives inside files are not
    opened. The exit status is 0, with --fail 1 if a secret is found; 125 means that the image could not be read.
    """
    from builda.builder.image import describe, secretscan
    from builda.builder.image.pull import machine_platform

    platform = shared_options.platform(values) or machine_platform()
    access = shared_options.registry_access(values, session.environ)
    seen = describe.seen(session.builder.context, image, access, platform)
    found = secretscan.secrets_of(seen.source, seen.manifest, seen.config, scanning.ignored(scan_ignore))
    if json:
        print_json([finding.to_json() for finding in found])
    else:
        for finding in found:
            print_words(str(finding))
        if found:
            print_words(f"{secretscan.counted(len(found))} in {image}")
    if fail and found:
        raise SystemExit(1)
