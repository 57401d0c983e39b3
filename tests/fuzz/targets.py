"""What reads input that strangers write. Each target takes bytes, and returns or raises an error of builda's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from builda import containersconf, lockfile
from builda.bake.dotenv import variables
from builda.builder.debug.keptstep import KeptStep, from_text, to_json
from builda.builder.image.search import results_in
from builda.cli.building import outputs, secrets
from builda.cli.format.gofuncs import FUNCTIONS, LAZY, Nil, NilList, NilMap, Struct, Time
from builda.cli.format.gotemplate import Template
from builda.contents.ecosystems import ECOSYSTEMS, PROGRAMS
from builda.contents.facts import File
from builda.errors import CorruptContent
from builda.frontend import sourcepolicy, words
from builda.frontend.change import edits_of
from builda.frontend.check_settings import settings_of
from builda.frontend.checks import Facts, check
from builda.frontend.compile import to_plan
from builda.frontend.compileoptions import CompileOptions
from builda.frontend.cppflags import parse_flags
from builda.frontend.heredoc import iter_logical
from builda.frontend.parse import parse
from builda.frontend.preprocess import preprocess
from builda.frontend.sourcetext import SourceText, decode
from builda.fs.chmod import parse_mode
from builda.fs.compress import decompressing, sniff
from builda.fs.ignore import Matcher
from builda.mounts import parse_mount
from builda.oci import manifest, stepcache
from builda.oci.config import ImageConfig, dump_config, empty_config, parse_config
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest
from builda.oci.docker import dump_docker_config
from builda.oci.duration import nanoseconds
from builda.oci.reference import Reference, parse_short
from builda.permissions import parse_permissions
from builda.places import Places
from builda.plan import FromImage, Run, RunMount
from builda.registry.auth import parse_challenges
from builda.registry.keyring import Keyring, parse_creds
from builda.registry.registries import Registries
from builda.scan.filescan import secrets_in
from builda.scan.imagescan import Finding, parse_ignored
from builda.store import imagemounts, layout
from builda.transfer.engine import Engine, failure_in
from builda.transfer.locate import parse_location
from builda.transfer.otherstore import Place
from builda.trust import payload, policy, registriesd, signature

AMD64 = Platform.parse("linux/amd64")
BASE = replace(empty_config(AMD64), env=(("PATH", "/bin"), ("A", "x y")), user="app", working_dir="/srv")
SECRET = Finding("github-token", "GitHub token", "/tests/a", 1, 1)
VALUES = {"A": "a b", "B": "", "C": "x/y/z.tar"}
PRINTED = Struct(
    {
        "Name": "app",
        "Tags": ["a", "b"],
        "Labels": {"k": "v"},
        "Config": Struct({"Count": 3}),
        "Nothing": None,
        "Unmade": NilMap(),
        "List": NilList(),
        "Pointer": Nil(),
        "Made": Time("2026-11-28T04:09:14Z"),
    }
)


class Target(NamedTuple):
    """What reads the input, well-formed inputs to begin with, and the words that inputs are made of."""

    read: Callable[[bytes, Path], object]
    seeds: tuple[str, ...]
    words: tuple[str, ...]


def mount_in(data: bytes, directory: Path) -> object:
    """The record of an image's mount in a file of the store; None if it is empty."""
    path = directory / "record"
    path.write_bytes(data)
    try:
        value = layout.read_json(str(path))
    except FileNotFoundError:
        return None
    return imagemounts.parse(value, str(path))


def of_text(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    """A target for text; bytes that are none become such as Python has for them."""
    return lambda data, _: read(data.decode(errors="surrogateescape"))


def of_argument(read: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    """A target for an argument of a command line, which has no NUL byte."""
    return of_text(lambda text: read(text.replace("\0", "")))


def of_file(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """A target for a file."""

    def written(data: bytes, directory: Path) -> object:
        path = directory / "file"
        path.write_bytes(data)
        return read(path)

    return written


def scanned(data: bytes, _: Path) -> object:
    """The secrets in a file, as files of several names have it."""
    paths = (
        "/x.conf",
        "/root/.netrc",
        "/root/.pgpass",
        "/root/.docker/config.json",
        "/root/.kube/config",
        "/etc/shadow",
    )
    return [list(secrets_in(io.BytesIO(data), path)) for path in paths]


def containerfile(data: bytes, _: Path) -> object:
    """Parse, check and compile."""
    parsed = parse(SourceText.of(decode(data, "f"), "f"))
    settings_of(parsed, {})
    check(parsed, Facts(platform=AMD64, config_of=lambda name: BASE))
    return to_plan(parsed, CompileOptions(platform=AMD64, build_platform=AMD64), lambda name, platform: BASE)


def preprocessed(data: bytes, _: Path) -> None:
    """Every line has a place."""
    done = preprocess(data, "f.in", context=None)
    assert len(done.source.lines) == len(done.source.places)


def expanded(text: str) -> None:
    """All that is done with words."""
    words.expand(text, VALUES.get)
    words.split(text, VALUES.get)
    words.keep_quotes(text, VALUES.get)
    words.parts(text)


def ignored(text: str) -> None:
    """A rule is asked for in three ways."""
    rules = Matcher.parse(text, "file")
    for path in ("a", "a/b.txt", "..", "x/é"):
        rules.excludes(path)
        rules.reaches_into(path)


def configuration(data: bytes, _: Path) -> None:
    """What was read can be written again, and is read as the same."""
    config: ImageConfig = parse_config(data)
    assert parse_config(dump_config(config)) == config
    dump_docker_config(config)


def document(data: bytes, _: Path) -> None:
    """A manifest, an index, or a list of cached steps."""
    found = manifest.parse(data)
    if isinstance(found, manifest.Index):
        manifest.choose(found, AMD64)
    else:
        stepcache.from_manifest(found)


def unpacked(data: bytes, _: Path) -> None:
    """A compressed stream, whatever it is."""
    import io

    decompressing(io.BytesIO(data), sniff(data[:8])).read(1 << 20)


def package_files(data: bytes, _: Path) -> None:
    """What each reader finds in a file of packages; a program may begin anywhere."""
    import io

    for row in (*ECOSYSTEMS, PROGRAMS):
        content = b"\x7fELF" + data if row is PROGRAMS else data
        try:
            for _fact in row.read(File("usr/share/doc/a/copyright", len(content), io.BytesIO(content).read)):
                pass
        except CorruptContent:  # which is told, and the next file is read
            continue


def registries(path: Path) -> None:
    """The file, and what it says of two names."""
    found = Registries.load(Places({}, 0, path.parent), path)
    for name in ("app:1", "example.com/a/b@" + str(Digest.of(b""))):
        for reference in found.candidates(name):
            found.pull_sources(reference)


def defaults(path: Path) -> object:
    """containers.conf."""
    return containersconf.load(Places({"CONTAINERS_CONF": str(path)}, 0, path.parent))


def keys(path: Path) -> object:
    """auth.json."""
    return Keyring(Places({}, 0, path.parent), path).find("example.com/a/b")


def mount(text: str) -> None:
    """A mount has an absolute target, or none."""
    for default_target in (False, True):
        target = parse_mount(text, FromImage, "/srv", default_target=default_target).target
        assert target.startswith("/") or not target


def change(text: str) -> object:
    """`commit --change`."""
    return edits_of(BASE, (text,))


def json_of(value: object) -> str:
    return json.dumps(value)


DESCRIPTOR = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(Digest.of(b"a")), "size": 1}
LAYER = {**DESCRIPTOR, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
MANIFEST = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [LAYER], "annotations": {"a": "b"}}
INDEX = {"schemaVersion": 2, "manifests": [{**DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64"}}]}
IMAGE = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2024-05-06T07:08:09Z",
    "config": {
        "Env": ["A=b"],
        "Cmd": ["x"],
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1},
        "Volumes": {"/v": {}},
    },
    "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"d"))]},
    "history": [{"created_by": "x", "empty_layer": True}],
}
JSON = (
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "null",
    "true",
    "1e999",
    "-1",
    '"size"',
    "{}",
    "[]",
    '""',
    "9" * 400,
    "\\ud800",
)
TOML = ("[", "]", "=", '"', "\n", "true", "1", "[]", "{append=true}", "#", "\\u", "1979-05-27")
INSTRUCTIONS = tuple(
    f"{word} "
    for word in (
        "FROM RUN COPY ADD ENV ARG LABEL EXPOSE USER WORKDIR ONBUILD CMD ENTRYPOINT HEALTHCHECK SHELL STOPSIGNAL VOLUME"
    ).split()
)
TEXT = (
    "\n",
    "\n",
    "\\\n",
    " ",
    "\t",
    "'",
    '"',
    "\\",
    "$",
    "${",
    "}",
    ":-",
    "=",
    "#",
    "é",
    "\u00a0",
    "\x85",
    "\0",
    "\udcff",
)
SHELL = (*TEXT, "%%", "##", "/", "*", "?", "[", "]", "<<EOF", "EOF\n", "<<-", "A", "0", "65535", "-", "--", ",")

TARGETS = {
    "containerfile": Target(
        containerfile,
        (
            "FROM image AS a\nARG V=1\nENV A=$V B='c d'\nRUN --mount=type=cache,target=/c make\nCOPY --from=b /x /y\n",
            "# check=skip=all\nFROM scratch\nCOPY <<EOF /f\ntext $A\nEOF\nHEALTHCHECK --interval=1s CMD x\n",
            'FROM image\nONBUILD RUN x\nSHELL ["sh"]\nVOLUME ["/v"]\nUSER a:b\nSTOPSIGNAL 9\nLABEL a=b\nCMD ["x"]\n',
        ),
        (*INSTRUCTIONS, *SHELL, "--mount=", "type=", "--from=", "--chmod=", "scratch", "image", " AS a", '["'),
    ),
    "containerfile.in": Target(
        preprocessed,
        ("#define X(a, b) a b\n#if X > 1 && defined(Y)\nRUN X(1, 2)\n#else\nRUN x\n#endif\n",),
        (
            "#include",
            "# define",
            "#if",
            "#endif",
            "#else",
            "#elif",
            " X",
            "X(a, b)",
            " 1",
            " ??/",
            "\n",
            "/*",
            "*/",
            "//",
            "\\\n",
            "'",
            '"',
            "<<EOF",
            "EOF",
            "RUN ",
            "#",
            "##",
            "(",
            ")",
            "\t",
            "\ue001",
            "é",
            "$",
            " > ",
        ),
    ),
    "heredoc": Target(
        of_text(lambda text: list(iter_logical(tuple(text.split("\n"))))),
        ("RUN <<EOF cat <<-'B'\na\nEOF\n\tb\n\tB\n", "COPY <<a <<b /\n1\na\n2\nb\n"),
        (*SHELL, "RUN ", "COPY ", "<<'E'", "E\n"),
    ),
    "words": Target(of_text(expanded), ("${A:-b}/${C%%/*}", "a'b'\"$A\"\\ c", "${A/a/b}${C#*/}"), SHELL),
    "preprocessor flags": Target(
        of_text(lambda text: parse_flags(text, (text,))), ("-DA=b -I dir",), ("-D", "-I", *TEXT)
    ),
    "change": Target(
        of_text(change),
        ("ENV A=b", 'CMD ["x"]', "HEALTHCHECK --interval=1s --retries=2 CMD x", "EXPOSE 80/udp", "WORKDIR /a"),
        (*INSTRUCTIONS, *SHELL, "--interval=", "1h", "NONE"),
    ),
    "ignore file": Target(of_text(ignored), ("# c\n*.md\n!a/**/b\n[^a]?\n", "/x\n\\!y\n"), (*TEXT, *"*?[]^-!/.ab")),
    "failed step": Target(
        of_text(from_text),
        (
            json_of(
                to_json(
                    KeptStep(
                        Run(
                            args=("sh",),
                            env=(("A", "b"),),
                            mounts=(RunMount(type="bind", target="/m", from_=FromImage("x"), options=("rslave",)),),
                        ),
                        "RUN x",
                        named=(("n", "/c"),),
                    )
                )
            ),
        ),
        (*JSON, '"mounts"', '"type=cache,target=/c,from=image:x"', '"options"', '"network"', '"env"', '"args"'),
    ),
    "mount": Target(
        of_text(mount),
        (
            "type=cache,id=a,target=/x,sharing=locked,mode=0755",
            "type=secret,id=a,uid=1",
            'type=bind,"source=a,b",dst=/x',
        ),
        (
            "type=",
            "bind",
            "cache",
            "tmpfs",
            "secret",
            "ssh",
            "target=",
            "source=",
            "from=",
            "id=",
            "env=",
            ",",
            ",",
            "..",
            "/x",
            "mode=",
            "uid=",
            "-1",
            "size=",
            "1g",
            "sharing=",
            "required",
            "bind-propagation=",
            *TEXT,
        ),
    ),
    "secret": Target(
        of_argument(lambda text: secrets.secrets_of((text,), {"A": "x"})),
        ("id=a,env=A", "id=a,src=/nowhere", "type=env,id=A"),
        ("id=", "src=", "env=", "type=", "file", ",", "A", *TEXT),
    ),
    "output": Target(
        of_argument(lambda text: outputs.parse((text,))),
        ("type=tar,dest=x", "type=local,dest=d", "-", "type=image,name=a:1,push=true"),
        ("type=", "dest=", "name=", "tar", "local", "oci", ",", "-", *TEXT),
    ),
    "permission": Target(
        of_text(lambda text: parse_permissions((text,), None)),
        ("device=/dev/x", "network.host", "security.insecure"),
        ("device", "=", "/dev", "/x", "..", ",", "network.host", "security.insecure", " "),
    ),
    "mode": Target(of_text(parse_mode), ("u=rwX,go-w", "4755"), tuple("ugoa+-=rwxXst,07 é")),
    "duration": Target(of_text(nanoseconds), ("1h30m", "2.5s"), (*tuple("0123456789.hmsuµn -"), "9" * 99)),
    "reference": Target(
        of_text(lambda text: (Reference.parse(text), parse_short(text))),
        ("example.com:5000/a/b:1@" + str(Digest.of(b"")), "alpine"),
        (*tuple("aA0.:/@-_ é\x00"), "sha256:", "[::1]", "localhost"),
    ),
    "platform": Target(of_text(Platform.parse), ("linux/arm64/v8", "linux/amd64"), ("linux", "/", "arm", "v7", *TEXT)),
    "credentials": Target(of_text(parse_creds), ("a:b",), tuple("a:@ \0é")),
    "challenge": Target(
        of_text(lambda text: parse_challenges((text,))),
        ('Bearer realm="https://a/b",service="c",scope="d"', "Basic realm=x, Bearer"),
        ("Bearer ", "Basic ", "realm=", ",", '"', "\\", "=", *TEXT),
    ),
    "template": Target(
        of_text(lambda text: Template(text).render(PRINTED)),
        ("{{range .Tags}}{{.}}{{end}}", '{{if eq .Name "app"}}{{json .Labels}}{{else}}{{printf "%5d" 1}}{{end}}'),
        (
            "{{",
            "}}",
            "(",
            ")",
            "|",
            "$",
            "$x",
            ".",
            ":=",
            "=",
            ",",
            "-",
            "/*",
            "*/",
            "nil",
            "1e999",
            "9" * 5000,
            "0x",
            "'a'",
            '"%q"',
            '"%*d"',
            "`%v`",
            '"%99999999999s"',
            '"\\U99999999"',
            '"\\ud800"',
            *(f".{name} " for name in "Name Tags Made Unmade Pointer Foo".split()),
            *tuple(f"{name} " for name in sorted([*FUNCTIONS, *LAZY, "if", "range", "with", "else", "end", "break"])),
        ),
    ),
    "manifest": Target(document, (json_of(MANIFEST), json_of(INDEX)), (*JSON, '"platform"', '"config"', '"digest"')),
    "image configuration": Target(configuration, (json_of(IMAGE),), (*JSON, '"Env"', '"history"', '"A"', '"created"')),
    "source policy": Target(
        lambda data, _: sourcepolicy.parse(data, "p"),
        (
            json_of(
                {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://a", "matchType": "WILDCARD"}}]}
            ),
        ),
        (*JSON, '"(a"', '"REGEX"', '"*"'),
    ),
    "secrets in a file": Target(
        scanned,
        (
            "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEowIBAAKCAQEAtn3d8xqR9sT2vLkWq0aZpYx7u1Jm5cBhGfDeRoNi\n",
            "machine a.example login me password k3Xc9Qw7\n",
            "DB_PASSWORD=k3Xc9Qw7ZtP2Lm\nurl = postgres://app:k3Xc9Qw7ZtP2@db/\n",
        ),
        ("\n", "\0", "password", "token=", "eyJ", ".eyJ", "ghp_", "://", "@", "a" * 24, "-----BEGIN ", ": ", '"'),
    ),
    "accepted secrets": Target(
        lambda data, _: [line.covers(SECRET) for line in parse_ignored(data, "f")],
        ("github-token /tests/* # made up\n* Env A # revoked\n",),
        ("*", "?", "[", "]", " # ", "\n", "/", "!"),
    ),
    "lock file": Target(
        lambda data, _: lockfile.dump(lockfile.parse(data, "f")),
        (
            json_of(
                {
                    "version": 1,
                    "images": {
                        "a:1": {
                            "name": "r.example/a:1",
                            "digest": f"sha256:{'a' * 64}",
                            "platforms": ["linux/arm64/v8"],
                        }
                    },
                    "urls": {"https://a.example/b": f"sha256:{'a' * 64}"},
                    "repositories": {"https://a.example/b.git#main": "a" * 40},
                }
            ),
        ),
        (*JSON, '"version"', '"images"', '"digest"', '"name"', '"platforms"', '"urls"'),
    ),
    "variables of compose": Target(
        of_text(lambda text: variables(text, ".env", VALUES, set())),
        ("A=b # c\nexport B='x\ny'\n", 'C="\\n${A:-x}"\nD\nE: $A\n'),
        (*TEXT, *"=:#'\"\\$ {}\n", "export ", "${A", ":-"),
    ),
    "place of an image": Target(
        of_text(parse_location),
        ("docker://a/b:1", "oci:d:n", "dir:/a", "docker-daemon:a:1", "containers-storage:[overlay@/a+/b]c"),
        ("docker://", "oci:", "docker-daemon:", "containers-storage:", "[", "]", "@", "+", ":", "/", "..", "sha256:"),
    ),
    "another store": Target(
        of_text(Place.parse),
        ("[]a", "[overlay@/a+/b:x=1,y=2]c", "[/a]@b"),
        ("[", "]", "@", "+", ":", ",", "/", "=", "a"),
    ),
    "answer of an engine": Target(
        lambda data, _: failure_in(data),
        ('{"stream": "x"}\n{"error": "y", "errorDetail": {}}\n',),
        ("{", "}", "[", "]", ":", ",", '"error"', '"stream"', "null", "1", "\n"),
    ),
    "address of an engine": Target(
        of_text(Engine),
        ("unix:///a/b", "tcp://host:2375", "tcp://[::1]:1"),
        ("unix", "tcp", "http", "://", "/", ":", "[", "]", "@", "99999", "-1"),
    ),
    "answer to a search": Target(
        lambda data, _: results_in(data, "https://index.example"),
        ('{"results": [{"name": "a", "description": null, "star_count": 3, "is_official": true}]}',),
        ("{", "}", "[", "]", ":", ",", '"results"', '"name"', '"star_count"', "null", "true", "1", "1e999"),
    ),
    "record of a mount": Target(
        mount_in,
        (
            json.dumps(
                {"image": f"sha256:{'0' * 64}", "place": "/a", "base": None, "tree": "x", "times": 1, "boot": "b"}
                | {"namespace": "1", "pids": "2"}
            ),
        ),
        ("{", "}", "[", "]", ":", ",", '"image"', '"times"', "null", "true", "1"),
    ),
    "policy.json": Target(
        of_text(lambda text: policy.parse(text, "p")),
        (
            json_of(
                {"default": [{"type": "reject"}], "transports": {"docker": {"": [{"type": "insecureAcceptAnything"}]}}}
            ),
        ),
        (*JSON, '"type"', '"default"', '"signedBy"', '"keyPath"', '"signedIdentity"', '"remapIdentity"', '"fulcio"'),
    ),
    "payload of a signature": Target(
        lambda data, _: payload.read(data, payload.SIMPLE),
        (payload.written(payload.Claim(Digest.of(b""), "a/b:1"), payload.SIMPLE, creator="c", timestamp=1).decode(),),
        (*JSON, '"critical"', '"optional"', '"timestamp"', "1e400", '"docker-reference"'),
    ),
    "file of a signature": Target(
        lambda data, _: signature.parse(data),
        (signature.dump(signature.Sigstore("t", b"p", {"a": "b"})).decode(),),
        (*JSON, "\0", "sigstore-json\n", "simple-signing\n", '"payload"'),
    ),
    "registries.d": Target(
        of_file(registriesd.read_file),
        (json_of({"default-docker": {"lookaside": "file:///x"}, "docker": {"a.b": {"sigstore": "https://x"}}}),),
        (*JSON, "lookaside", "use-sigstore-attachments: true\n", "docker:\n", "http://[", "&a ", "*a "),
    ),
    "registries.conf": Target(
        of_file(registries),
        (
            'unqualified-search-registries = ["a.b"]\n[[registry]]\nprefix = "*.x.y"\nlocation = "z.y"\n'
            '[[registry.mirror]]\nlocation = "m.y"\n',
        ),
        (*TOML, "[[registry]]\n", "[aliases]\n", "prefix", "location", "*.a"),
    ),
    "containers.conf": Target(
        of_file(defaults),
        (
            '[containers]\nulimits = ["nofile=1:2"]\nenv = ["A=b"]\nshm_size = "1m"\n'
            '[engine]\nretry = 3\nretry_delay = "1s"\n',
        ),
        (*TOML, "[engine]\n", "[containers]\n", "volumes", "shm_size", "retry", "dns_servers"),
    ),
    "package files": Target(
        package_files,
        (
            "Package: a\nStatus: install ok installed\nVersion: 1\nSource: b (2)\n\n",
            "Format: x\nLicense: GPL-2+\n",
            "P:a\nV:1\nL:MIT\no:b\n\n",
            "Name: a\nVersion: 1\nClassifier: License :: OSI Approved :: MIT License\n\n",
            json_of({"name": "a", "version": "1", "license": {"type": "MIT"}}),
            json_of({"packages": {"node_modules/a": {"version": "1"}}, "dependencies": {"b": {"version": "1"}}}),
            'ID="debian"\nVERSION_ID=12\n',
            "\xff Go buildinf:\x08\x02" + "\0" * 16 + "\x04go1.\x28" + "m" * 16 + "dep\ta\tv\n" + "n" * 16,
        ),
        (*JSON, "\n\n", "Package:", "Version:", " ", "P:", "V:", "\0", "\xff Go buildinf:", "\tv1\n", '"version"'),
    ),
    "auth.json": Target(
        of_file(keys),
        (
            json_of(
                {"auths": {"example.com": {"auth": "YTpi"}, "example.com/a": {"identitytoken": "x"}}, "credHelpers": {}}
            ),
        ),
        (*JSON, '"auth"', '"auths"', '"YTpi"', '"/"', '"credHelpers"'),
    ),
    "compressed stream": Target(unpacked, ("\x1f\x1e", "BZh91", "plain"), ("\x1f", "\x1e", "BZh9", "\0", "(", "\x7f")),
}
