"""registries.conf: what names mean, and where they are pulled from."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.errors import InvalidValue, NotFound, RegistryError, Unsupported
from builda.oci.reference import Reference
from builda.places import Places
from builda.registry.registries import Registries

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places({"HOME": str(tmp_path / "home")}, 1000, tmp_path / "system")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(tmp_path: Path, text: str) -> Registries:
    return Registries.load(Places({"HOME": "/nonexistent"}, 1000, tmp_path), write(tmp_path / "r.conf", text))


def names(registries: Registries, text: str) -> list[str]:
    return [str(candidate) for candidate in registries.candidates(text)]


def pulled(registries: Registries, text: str) -> list[tuple[str, bool]]:
    return [(str(place.reference), place.insecure) for place in registries.pull_sources(Reference.parse(text))]


def test_without_configuration_short_names_are_on_docker_io(places: Places) -> None:
    registries = Registries.load(places)
    assert names(registries, "alpine") == ["docker.io/library/alpine:latest"]
    assert names(registries, "foo/bar:1") == ["docker.io/foo/bar:1"]


def test_search_registries_are_candidates_in_their_order(tmp_path: Path) -> None:
    registries = load(tmp_path, 'unqualified-search-registries = ["quay.io", "docker.io", "r.example:5000/team"]')
    assert names(registries, "app:2") == ["quay.io/app:2", "docker.io/library/app:2", "r.example:5000/team/app:2"]


def test_qualified_names_mean_themselves(tmp_path: Path) -> None:
    registries = load(tmp_path, 'unqualified-search-registries = ["quay.io"]')
    assert names(registries, "localhost:5000/app") == ["localhost:5000/app:latest"]


def test_an_empty_search_list_forbids_short_names(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="short name: alpine"):
        load(tmp_path, "unqualified-search-registries = []").candidates("alpine")


def test_an_alias_is_the_only_candidate_and_keeps_the_version(tmp_path: Path) -> None:
    registries = load(tmp_path, 'unqualified-search-registries = ["q.io"]\n[aliases]\nfedora = "r.org/fedora"')
    assert names(registries, "fedora") == ["r.org/fedora:latest"]
    assert names(registries, "fedora:40") == ["r.org/fedora:40"]
    assert names(registries, f"fedora@{DIGEST}") == [f"r.org/fedora@{DIGEST}"]


def test_drop_ins_merge_by_file_name_and_apply_in_order(places: Places) -> None:
    system = places.system / "etc/containers"
    write(system / "registries.conf", 'unqualified-search-registries = ["a.io"]\n[aliases]\nx = "a.io/x"')
    write(system / "registries.conf.d/10.conf", '[aliases]\nx = "b.io/x"\ny = "b.io/y"')
    write(system / "registries.conf.d/20.conf", '[aliases]\ny = ""')
    write(places.home() / ".config/containers/registries.conf.d/10.conf", '[aliases]\nx = "mine.io/x"\ny = "c.io/y"')
    registries = Registries.load(places)
    assert names(registries, "x") == ["mine.io/x:latest"]
    assert names(registries, "y") == ["a.io/y:latest"]


def test_a_users_file_replaces_the_systems(places: Places) -> None:
    write(places.system / "etc/containers/registries.conf", 'unqualified-search-registries = ["a.io"]')
    write(places.home() / ".config/containers/registries.conf", 'unqualified-search-registries = ["b.io"]')
    assert names(Registries.load(places), "x") == ["b.io/x:latest"]


def test_a_named_file_stands_alone_and_the_override_comes_last(places: Places, tmp_path: Path) -> None:
    write(places.system / "etc/containers/registries.conf.d/1.conf", '[aliases]\nx = "no.io/x"')
    named = write(tmp_path / "named.conf", 'unqualified-search-registries = ["named.io"]')
    override = write(tmp_path / "over.conf", '[aliases]\nz = "over.io/z"')
    environ = {
        **places.environ,
        "CONTAINERS_REGISTRIES_CONF": str(named),
        "CONTAINERS_REGISTRIES_CONF_OVERRIDE": str(override),
    }
    registries = Registries.load(places._replace(environ=environ))
    assert names(registries, "x") == ["named.io/x:latest"]
    assert names(registries, "z") == ["over.io/z:latest"]


def test_learned_short_names_are_read(places: Places) -> None:
    write(Path(places.short_name_aliases()), '[aliases]\nredis = "quay.io/redis"')
    assert names(Registries.load(places), "redis") == ["quay.io/redis:latest"]


def test_location_rewrites_below_the_longest_prefix(tmp_path: Path) -> None:
    registries = load(
        tmp_path,
        """
        [[registry]]
        prefix = "example.com"
        location = "general.io/all"
        [[registry]]
        prefix = "example.com/team"
        location = "team.io"
        insecure = true
        """,
    )
    assert pulled(registries, "example.com/other/app:1") == [("general.io/all/other/app:1", False)]
    assert pulled(registries, "example.com/team/app:1") == [("team.io/app:1", True)]
    assert pulled(registries, "example.com/teams/app:1") == [("general.io/all/teams/app:1", False)]


def test_wildcard_prefixes_match_subdomains_only(tmp_path: Path) -> None:
    registries = load(tmp_path, '[[registry]]\nprefix = "*.example.com"\ninsecure = true')
    assert pulled(registries, "a.b.example.com:5000/x:1") == [("a.b.example.com:5000/x:1", True)]
    assert pulled(registries, "example.com/x:1") == [("example.com/x:1", False)]
    assert pulled(registries, "docker.io/a.example.com/x:1") == [("docker.io/a.example.com/x:1", False)]


def test_mirrors_come_first_and_only_for_their_kind_of_reference(tmp_path: Path) -> None:
    registries = load(
        tmp_path,
        """
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "all.io/hub"
        insecure = true
        [[registry.mirror]]
        location = "digest.io"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tag.io"
        pull-from-mirror = "tag-only"
        """,
    )
    last = ("docker.io/library/alpine:3", False)
    assert pulled(registries, "alpine:3") == [
        ("all.io/hub/library/alpine:3", True),
        ("tag.io/library/alpine:3", False),
        last,
    ]
    assert [name.partition("/")[0] for name, _ in pulled(registries, f"alpine@{DIGEST}")] == [
        "all.io",
        "digest.io",
        "docker.io",
    ]


def test_mirror_by_digest_only_leaves_tags_alone(tmp_path: Path) -> None:
    registries = load(
        tmp_path,
        '[[registry]]\nlocation = "a.io"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "m.io"',
    )
    assert len(registries.pull_sources(Reference.parse("a.io/x:1"))) == 1
    assert len(registries.pull_sources(Reference.parse(f"a.io/x@{DIGEST}"))) == 2


def test_a_blocked_registry_is_named_with_the_file_that_blocks_it(tmp_path: Path) -> None:
    registries = load(tmp_path, '[[registry]]\nlocation = "bad.io"\nblocked = true')
    with pytest.raises(RegistryError, match=r"blocked by .*r\.conf: bad\.io/x:1"):
        registries.pull_sources(Reference.parse("bad.io/x:1"))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("[[registry", InvalidValue, "not valid TOML"),
        ("[registries.search]\nregistries = ['a']", Unsupported, "version 1"),
        ("registry = 3", InvalidValue, "array of tables"),
        ('[[registry]]\ninsecure = "yes"\nlocation = "a.io"', InvalidValue, "true or false"),
        ("[[registry]]\ninsecure = true", InvalidValue, "neither prefix nor location"),
        ('[[registry]]\nlocation = "https://a.io"', InvalidValue, "no scheme"),
        ('[[registry]]\nlocation = "mirror"', InvalidValue, "start with a host"),
        ('[[registry]]\nprefix = "a.*.io"', InvalidValue, "may only start with"),
        ('[[registry]]\nlocation="a.io"\n[[registry.mirror]]\ninsecure=true', InvalidValue, "no location"),
        ('unqualified-search-registries = ["docker"]', InvalidValue, "not a host"),
        ('short-name-mode = "maybe"', InvalidValue, "short-name-mode"),
        ("aliases = 1", InvalidValue, "table of strings"),
    ],
)
def test_nonsense_is_refused_with_the_file_named(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        load(tmp_path, text)
    assert "r.conf" in str(caught.value)


def test_a_missing_named_file_is_an_error(places: Places) -> None:
    with pytest.raises(NotFound, match=r"/no/such\.conf"):
        Registries.load(places, Path("/no/such.conf"))


SOURCES = (
    '{"insecureRegistries": ["a.example"], "blockedRegistries": ["b.example"], "allowedRegistries": ["a.example"]}'
)


def limited(tmp_path: Path, text: str, conf: str = "") -> Registries:
    environ = {"HOME": "/nonexistent", "BUILD_REGISTRY_SOURCES": text}
    return Registries.load(Places(environ, 1000, tmp_path), write(tmp_path / "r.conf", conf))


def test_build_registry_sources_limit_what_is_reached(tmp_path: Path) -> None:
    registries = limited(tmp_path, SOURCES)
    assert pulled(registries, "a.example/x:1") == [("a.example/x:1", True)]
    with pytest.raises(RegistryError, match=r"blocked by .BUILD_REGISTRY_SOURCES: b\.example"):
        registries.allowed(Reference.parse("b.example/x:1"))
    with pytest.raises(RegistryError, match="not in allowedRegistries") as caught:
        registries.allowed(Reference.parse("c.example/x:1"))
    assert caught.value.hint == "it allows a.example"


def test_build_registry_sources_keep_the_mirrors_of_registries_conf(tmp_path: Path) -> None:
    conf = '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "m.example"\n'
    registries = limited(tmp_path, '{"insecureRegistries": ["a.example"]}', conf)
    assert pulled(registries, "a.example/x:1") == [("m.example/x:1", False), ("a.example/x:1", True)]


@pytest.mark.parametrize("text", ["no", "[]", "[" * 100_000, '{"allowed": []}', '{"blockedRegistries": "b.example"}'])
def test_build_registry_sources_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidValue, match="BUILD_REGISTRY_SOURCES"):
        limited(tmp_path, text)
