"""Many builds at once in a cluster."""

from __future__ import annotations

from builda.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.cli.verbs.bakerun import Result
    from builda.cli.verbs.bakewords import Planned


def build_in_cluster(
    session: Session, builds: Sequence[Planned], common: Sequence[str], values: dict[str, Any], on: str, *, live: bool
) -> Mapping[str, Result]:
    """Build all."""
    raise Unsupported("bake cannot be used with --on yet")
