"""`image list-tags`, `search` and `delete`: what a registry is asked or told without an image being moved."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, number, switch
from builda.cli.core.output import print_json, print_line
from builda.cli.core.verb import verb
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.image.search import Found
    from builda.cli.core.verbsession import Session

_JSON = switch("--json", help="Print JSON.")


@verb(
    argument("repository"),
    _JSON._replace(help="Print JSON, as is always done."),
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-list-tags",
    interspersed=True,
    example="builda image list-tags docker://docker.io/library/debian",
)
def list_tags(session: Session, *, repository: str, **values: Any) -> None:
    """Print the tags of a repository as JSON; of a docker-archive: the names of its images."""
    from builda.builder.image import between
    from builda.transfer.locate import parse_location

    values.pop("json")
    access = shared_options.registry_access(values, session.environ)
    location = parse_location(repository)
    if location is not None and location.transport == "docker-archive":
        from builda.transfer.dockerarchive import names_in

        print_json({"Tags": list(names_in(location.where))})
        return
    reference = between.repository(repository)
    if reference.digest is not None or ":" in repository.rpartition("/")[2]:
        raise InvalidValue(f"a name with a tag means one image: {repository}", hint="leave out the tag")
    tags = session.builder.context.remote.tags(reference, access)
    print_json({"Repository": reference.name, "Tags": list(tags)})


@verb(
    argument("term"),
    number("--limit", help="Print at most so many (default: all; of docker.io 25)."),
    _JSON,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-search",
    interspersed=True,
    example="builda image search registry.example.org/app",
)
def search(session: Session, *, term: str, json: bool, limit: int | None, **values: Any) -> None:
    """Print the repositories of a registry whose names hold a word.

    TERM is HOST/WORD, or HOST for all repositories. The registry has to show its catalog. docker.io shows none and is
    asked for the word; --json has the descriptions and stars that it tells.
    """
    from builda.builder.image import search as searching

    access = shared_options.registry_access(values, session.environ)
    found = searching.search(session.builder.context, term, access, limit)
    if json:
        print_json([_as_told(one) for one in found])
        return
    for one in found:
        print_line(one.name)


def _as_told(found: Found) -> dict[str, Any]:
    if not found.name.startswith("docker.io/"):
        return {"name": found.name}
    return {
        "name": found.name,
        "description": found.description,
        "stars": found.stars,
        "official": found.is_official,
    }


@verb(
    argument("image"),
    _JSON,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-delete",
    interspersed=True,
    example="builda image delete docker://registry.example.org/app:old",
)
def delete(session: Session, *, image: str, json: bool, **values: Any) -> None:
    """Delete an image in a registry, with all its tags, and print its digest.

    A tag is looked up first: what is deleted is the manifest that it means, so that every tag of it is gone.
    """
    from builda.builder.image import between

    access = shared_options.registry_access(values, session.environ)
    digest = str(between.delete(session.builder.context, image, access).digest)
    if json:
        print_json({"image": image, "digest": digest})
    else:
        print_line(digest)
