"""--scan and --scan-ignore of `build` and `commit`, and what they and `image scan` share."""

from __future__ import annotations

from functools import partial

from builda.cli.core.options import Params, text
from builda.errors import InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.scan.imagescan import Ignored
    from builda.store.store import Image

IGNORE = text(
    "--scan-ignore", metavar="FILE", help="Accept the secrets in the lines of this file: RULE PLACE # reason."
)
OPTIONS: Params = (
    text(
        "--scan",
        metavar="HOW",
        bare="warn",
        help="Look for keys, tokens and passwords in the image: warn, or fail before it has a name.",
    ),
    IGNORE,
)


def check(session: Session, values: dict[str, Any]) -> Callable[[Image], None] | None:
    """A function that scans an image, to call before the image gets a name; None without --scan."""
    how, file = values.pop("scan"), values.pop("scan_ignore")
    if how is None:
        if file is not None:
            raise InvalidValue("--scan-ignore needs --scan")
        return None
    if how not in ("warn", "fail"):
        raise InvalidValue(f"--scan is warn or fail: {how}")
    from builda.builder.image.secretscan import Scan

    return partial(Scan(how == "fail", ignored(file)).check, session.builder.context)


def ignored(file: str | None) -> tuple[Ignored, ...]:
    """The lines of an allow file; NotFound and InvalidValue naming it."""
    from builda.inputfile import read_input
    from builda.scan.imagescan import parse_ignored

    if file is None:
        return ()
    try:
        return parse_ignored(read_input(file, "list of accepted secrets"), file)
    except FileNotFoundError as error:
        raise NotFound(f"no such list of accepted secrets: {file}") from error
