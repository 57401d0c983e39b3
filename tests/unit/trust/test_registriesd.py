"""registries.d: where signatures are, for which image, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.places import Places
from builda.trust.registriesd import Lookaside, Signatures

DIGEST = Digest.of(b"m")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "etc/containers/registries.d").mkdir(parents=True)
    return Places({"HOME": str(tmp_path / "home")}, 1000, tmp_path)


def written(places: Places, text: str, name: str = "a.yaml", where: str = "etc/containers") -> Signatures:
    directory = places.system / where / "registries.d"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(text)
    return Signatures.load(places)


def read(found: Signatures, name: str) -> str:
    return found.to_read(Reference.parse(name)).url


def test_without_files_a_directory_of_the_user_or_of_the_machine(places: Places, tmp_path: Path) -> None:
    assert read(Signatures.load(places), "r.io/a") == f"file://{tmp_path}/home/.local/share/containers/sigstore"
    assert read(Signatures.load(places._replace(uid=0)), "r.io/a") == f"file://{tmp_path}/var/lib/containers/sigstore"
    assert not Signatures.load(places).has_attachments(Reference.parse("r.io/a"))


def test_the_narrowest_scope_that_says_something(places: Places) -> None:
    found = written(
        places,
        """
default-docker:
    sigstore: file:///default
    use-sigstore-attachments: true
docker:
    r.io:
        lookaside: https://r.example/x
        sigstore: file:///old
    r.io/a/b:
        lookaside-staging: file:///staging
        use-sigstore-attachments: false
    r.io/a/b:1:
        lookaside: http://one
    "*.example":
        sigstore-staging: file:///old-staging
    r.io:5:
""",
    )
    for name, url in (
        ("q.io/a", "file:///default"),
        ("r.io/x", "https://r.example/x"),
        ("r.io/a/b:2", "https://r.example/x"),
        ("r.io/a/b:1", "http://one"),
        ("r.io:5/a", "file:///default"),
        ("deep.example/a", "file:///default"),
    ):
        assert read(found, name) == url, name
    assert found.to_write(Reference.parse("r.io/a/b:2")).url == "file:///staging"
    assert found.to_write(Reference.parse("deep.example/a")).url == "file:///old-staging"
    for name, url in (("r.io/a", "https://r.example/x"), ("r.io/a/b:1", "http://one")):
        with pytest.raises(Unsupported, match=f"cannot be written to {url}"):
            found.to_write(Reference.parse(name))
    assert found.has_attachments(Reference.parse("r.io/x"))
    assert not found.has_attachments(Reference.parse("r.io/a/b"))


def test_the_users_directory_stands_instead(places: Places) -> None:
    written(places, "default-docker: {lookaside: file:///machine}")
    found = written(places, "default-docker: {lookaside: file:///user}", where="home/.config/containers")
    assert read(found, "a") == "file:///user"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "cannot be read as YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("[]\n---\n[]", "cannot be read as YAML"),
        ("text", "not a mapping"),
        ("dockers: {}", "unknown key 'dockers'"),
        ("docker: []", "not a mapping"),
        ("docker: {r.io: text}", "not a mapping"),
        ("docker: {r.io: {lookasid: file:///x}}", "unknown key 'lookasid'"),
        ("docker: {r.io: {lookaside: [x]}}", "not a URL"),
        ("docker: {r.io: {lookaside: /x}}", "is written file:///"),
        ("docker: {r.io: {lookaside: 'ftp://x/y'}}", "is written file:///"),
        ("docker: {r.io: {lookaside: 'file://host/y'}}", "is written file:///"),
        ("docker: {r.io: {lookaside: 'https://h/y?z'}}", "is written file:///"),
        ("docker: {r.io: {lookaside: 'http://[/'}}", "not a URL"),
        ("docker: {r.io: {use-sigstore-attachments: maybe}}", "true or false"),
        ("docker: {r.io: {lookaside: file:///x}, r.io: {}}", "two keys are 'r.io'"),
    ],
)
def test_files_that_mean_nothing_are_named(places: Places, text: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words) as raised:
        written(places, text)
    assert "a.yaml" in str(raised.value)


def test_one_scope_stands_in_one_file(places: Places) -> None:
    written(places, "docker: {r.io: {lookaside: file:///x}}")
    with pytest.raises(InvalidValue, match=r"r\.io is in two files: .*a\.yaml .*b\.yaml"):
        written(places, "docker: {r.io: {}}", "b.yaml")
    written(places, "default-docker: {lookaside: file:///x}", "b.yaml")
    with pytest.raises(InvalidValue, match=r"default-docker is in two files"):
        written(places, "default-docker: {lookaside: file:///x}", "c.yaml")
    (places.system / "etc/containers/registries.d/c.yaml").write_text("")
    assert written(places, "no YAML: [", "c.txt").sections


def test_the_place_of_one_signature() -> None:
    place = Lookaside("https://h:8/x/", "https", "/x/").of(Reference.parse("r.io/a/b:1"), DIGEST, 2)
    assert place.url == f"https://h:8/x/a/b@sha256={DIGEST.encoded}/signature-2"
    assert place.path == f"/x/a/b@sha256={DIGEST.encoded}/signature-2"


@pytest.mark.parametrize("name", ["../a", "a/../../b", "a/..", ".", "a//b", ""])
def test_no_name_leads_out_of_the_storage(name: str) -> None:
    with pytest.raises(BuildaError, match="no place for signatures of such a name"):
        Lookaside("file:///x", "file", "/x").of(Reference("r.io", name, "1"), DIGEST, 1)
