"""`image search`: repositories of a registry by a word, from its catalog; of docker.io from its index."""

from __future__ import annotations

import json

from builda.errors import InvalidValue, RegistryError
from builda.oci.reference import Reference
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import RegistryAccess
    from builda.builder.remote import Download

INDEX = "https://index.docker.io"
"""Where docker.io is searched; its registry shows no catalog."""
LIMIT = 25
"""Results of docker.io, if the user does not say how many."""
MOST = 100
"""Results that docker.io gives at once."""
_ANSWER_LIMIT = 4 << 20
_PIECE = 1 << 16
_DOCKER = ("docker.io", "index.docker.io", "registry-1.docker.io")


class Found(NamedTuple):
    """A repository: its full name, and what docker.io says of it."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False


def search(ctx: Context, text: str, access: RegistryAccess, limit: int | None = None) -> tuple[Found, ...]:
    """The repositories of a registry that have the words behind the first slash of `text` in their names.

    Without a slash all repositories of the registry are named. docker.io decides itself what fits, best first, and
    looks at descriptions, too; InvalidValue without a word for it. Of any registry at most `limit`.
    """
    registry, _, words = text.removeprefix("docker://").partition("/")
    if registry in _DOCKER:
        return of_docker(ctx, words, access, LIMIT if limit is None else limit)
    if not words and not ("." in registry or ":" in registry or registry == "localhost"):
        raise InvalidValue(f"search names no registry: {text}", hint="write HOST/WORD, as in docker.io/WORD")
    reference = Reference.parse(f"{registry}/any")
    names = ctx.remote.repositories(reference.registry, access)
    return tuple(Found(f"{reference.registry}/{name}") for name in sorted(names) if words in name)[:limit]


def of_docker(ctx: Context, words: str, access: RegistryAccess, limit: int, *, index: str = INDEX) -> tuple[Found, ...]:
    """The results of a search in docker.io (API v1); RegistryError if the answer is malformed."""
    from urllib.parse import urlencode

    if not words:
        raise InvalidValue("docker.io is searched for a word only", hint="write docker.io/WORD")
    if not 1 <= limit <= MOST:
        raise InvalidValue(f"docker.io gives 1 to {MOST} results: {limit}")
    url = f"{index}/v1/search?{urlencode({'q': words, 'n': limit})}"
    with ctx.remote.fetch(url, access) as answer:
        data = _whole(answer, url)
    return results_in(data, url)[:limit]


def results_in(data: bytes, url: str) -> tuple[Found, ...]:
    """The results in an answer of the index; RegistryError if it is none."""
    return tuple(map(_found, _results(data, url)))


def _whole(answer: Download, url: str) -> bytes:
    data = bytearray()
    while piece := answer.read(_PIECE):
        data += piece
        if len(data) > _ANSWER_LIMIT:
            raise RegistryError(f"answer to a search has more than {_ANSWER_LIMIT} bytes: {url}")
    return bytes(data)


def _results(data: bytes, url: str) -> list[dict[str, object]]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"answer to a search is not JSON: {url}") from error
    results = value.get("results") if isinstance(value, dict) else None
    if not isinstance(results, list) or not all(_is_result(one) for one in results):
        raise RegistryError(f"answer to a search has no results: {url}")
    return results


def _is_result(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _found(result: dict[str, object]) -> Found:
    name, stars = str(result["name"]), result.get("star_count")
    return Found(
        f"docker.io/{name if '/' in name else f'library/{name}'}",
        str(result.get("description") or ""),
        stars if isinstance(stars, int) else 0,
        result.get("is_official") is True,
    )
