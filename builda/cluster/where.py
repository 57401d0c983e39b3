"""Where a build takes place: the value of `--on`."""

from __future__ import annotations

import re

from builda.errors import InvalidValue
from builda.values import NamedTuple

_HINT = "write kubernetes[:CONTEXT][/NAMESPACE], CONTEXT being one of the kubeconfig"


class Where(NamedTuple):
    """A context of the kubeconfig (None: the current one, or the service account's pod) and a namespace in it."""

    context: str | None = None
    namespace: str | None = None


def parse_where(text: str) -> Where:
    """What `kubernetes[:CONTEXT][/NAMESPACE]` means; the last slash counts, as names of contexts may have some."""
    engine, colon, rest = text.partition(":")
    if not colon:
        engine, _, namespace = text.partition("/")
        context = ""
    else:
        context, slash, namespace = rest.rpartition("/")
        if not slash:
            context, namespace = rest, ""
    if engine != "kubernetes" or (colon and not context) or ("/" in text and not namespace):
        raise InvalidValue(f"--on names no place for a build: {text}", hint=_HINT)
    if namespace and re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace) is None:
        raise InvalidValue(f"namespace of --on is no DNS label: {namespace}", hint=_HINT)
    return Where(context or None, namespace or None)
