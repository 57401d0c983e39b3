"""Names of variables whose values are probably secrets, as BuildKit's check SecretsUsedInArgOrEnv knows them."""

from __future__ import annotations

import re

_SECRET = re.compile(r"(_|^)(apikey|auth|credentials?|key|password|pword|passwd|secret|token)(_|$)", re.IGNORECASE)
_PUBLIC = re.compile(r"(_|^)(public|file|version)(_|$)", re.IGNORECASE)


def names_a_secret(name: str) -> bool:
    """Whether a variable of this name probably holds a secret: `API_TOKEN` does, `API_TOKEN_FILE` does not."""
    return _SECRET.search(name) is not None and _PUBLIC.search(name) is None
