"""policy.json (containers-policy.json(5)): which images may be taken from where, and which signatures they need.

`Policy.load` reads the file; everything after it is pure. `Policy.check` refuses what no signature could allow and says
which signatures are wanted; `trust.verify` looks for them.
"""

from __future__ import annotations

import base64
import binascii
import json
import os.path
from collections.abc import Mapping
from pathlib import Path

from builda.errors import BuildaError, InvalidReference, InvalidValue, NotFound, PolicyRejected, of_system
from builda.inputfile import read_input
from builda.oci.reference import Reference
from builda.places import Places
from builda.transfer.locate import TRANSPORTS, Location
from builda.trust.identity import DEFAULT, Identity, parse_identity
from builda.values import NamedTuple, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias


class Keys(NamedTuple):
    """Keys, in files or in the policy itself."""

    paths: tuple[str, ...] = ()
    data: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Accept:
    """insecureAcceptAnything."""

    type = "insecureAcceptAnything"


@dataclass(frozen=True, slots=True)
class Reject:
    """reject."""

    type = "reject"


@dataclass(frozen=True, slots=True)
class SignedBaseLayer:
    """signedBaseLayer, which no program implements."""

    type = "signedBaseLayer"


@dataclass(frozen=True, slots=True)
class SignedBy:
    """signedBy: one signature by one of these GPG keys."""

    keys: Keys
    identity: Identity = DEFAULT
    type = "signedBy"


class Fulcio(NamedTuple):
    """The authority that gives out certificates, and the person that the certificate has to be for."""

    authority: Keys
    issuer: str
    email: str


class Pki(NamedTuple):
    """Authorities of one's own, and the address or host that the certificate has to be for."""

    roots: Keys
    intermediates: Keys | None
    email: str | None
    hostname: str | None


@dataclass(frozen=True, slots=True)
class SigstoreSigned:
    """sigstoreSigned: one of cosign's signatures by one of these keys, or by a certificate of Fulcio or of `pki`.

    With `rekor`, one of these keys of a log has to say that the log has the signature.
    """

    keys: Keys | None
    fulcio: Fulcio | None = None
    rekor: Keys | None = None
    identity: Identity = DEFAULT
    pki: Pki | None = None
    type = "sigstoreSigned"


Signed: TypeAlias = "SignedBy | SigstoreSigned"
Requirement: TypeAlias = "Accept | Reject | SignedBaseLayer | Signed"
Rules: TypeAlias = "tuple[Requirement, ...]"
"""The requirements in one list, all of which an image has to fulfil."""

_GPG_KEYS = ("keyPath", "keyPaths", "keyData")
_SIGSTORE_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_REKOR_KEYS = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_SUBJECTS = ("subjectEmail", "subjectHostname")
_KEYS: Mapping[str, frozenset[str]] = {
    "insecureAcceptAnything": frozenset(),
    "reject": frozenset(),
    "signedBy": frozenset({"keyType", *_GPG_KEYS, "signedIdentity"}),
    "signedBaseLayer": frozenset({"baseLayerIdentity"}),
    "sigstoreSigned": frozenset({*_SIGSTORE_KEYS, "fulcio", *_REKOR_KEYS, "pki", "signedIdentity"}),
}
_OTHER_STORE = "containers-storage"
_BY_NAME = ("docker", "docker-daemon", "atomic")
"""Transports whose scopes are names of images, or the beginnings of such names."""


class Wanted(NamedTuple):
    """The signatures that one image needs: the file and the place in it that say so, and the requirements."""

    file: str
    place: str
    requirements: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one policy.json: by transport and scope, and those for everything else."""

    file: str
    default: Rules
    transports: Mapping[str, Mapping[str, Rules]]

    @classmethod
    def load(cls, places: Places, path: Path | None = None) -> Policy | None:
        """The policy in `path`, else in $CONTAINERS_POLICY_JSON, else this user's or this machine's; None without one.

        NotFound if a file that was named does not exist, InvalidValue for one that is no policy.
        """
        named = path or places.path("CONTAINERS_POLICY_JSON")
        file = named or next((d / "policy.json" for d in places.configuration() if _exists(d / "policy.json")), None)
        return None if file is None else parse(_read(file), str(file))

    def rules(self, transport: str, scopes: tuple[str, ...]) -> tuple[str, Rules]:
        """The rules for an image whose scopes are `scopes`, the narrowest first, and the place in the file of them."""
        known = self.transports.get(transport, {})
        for scope in (*scopes, ""):
            if scope in known:
                return _place(transport, scope), known[scope]
        return "default", self.default

    def check(self, transport: str, scopes: tuple[str, ...], name: str) -> Wanted | None:
        """The signatures that the image needs, None if it needs none.

        PolicyRejected naming `name` and the rule if no signature could help.
        """
        if transport == _OTHER_STORE and not scopes and self.transports.get(transport, {}).keys() - {""}:
            raise PolicyRejected(
                f"{self.file} has rules for some stores, and the name does not say which store it is in: {name}",
                hint=f"write {_OTHER_STORE}:[DRIVER@ROOT]NAME",
            )
        place, rules = self.rules(transport, scopes)
        for rule in rules:
            if isinstance(rule, Reject):
                raise PolicyRejected(
                    f"image is rejected by {self.file}: {name}",
                    hint=f"{place} of that file has a rule that says reject",
                )
            if isinstance(rule, SignedBaseLayer):
                raise PolicyRejected(
                    f"{self.file} wants a signed base layer, which no program can verify: {name}",
                    hint=f"the rule is {place}, of type {rule.type}",
                )
        signed = tuple(rule for rule in rules if isinstance(rule, SignedBy | SigstoreSigned))
        return Wanted(self.file, place, signed) if signed else None


def of_key(path: str, identity: str | None) -> Wanted:
    """The requirement of a signature by the key in this file: a GPG key, or a public key in PEM.

    cosign's signatures name no tag, so the repository counts; `identity` is the name that counts instead. InvalidValue
    or NotFound naming the file.
    """
    try:
        data = read_input(path, "key")
    except FileNotFoundError as error:
        raise NotFound(f"no such key: {path}") from error
    except OSError as error:
        raise of_system(error) from error
    keys, said = Keys(data=(data,)), {"type": "exactReference", "dockerReference": identity}
    name = None if identity is None else parse_identity(said, "--identity")
    if b"-----BEGIN PUBLIC KEY-----" in data:
        return Wanted(path, "--key", (SigstoreSigned(keys, identity=name or "matchRepository"),))
    return Wanted(path, "--key", (SignedBy(keys, name or DEFAULT),))


def scopes_of(place: Reference | Location) -> tuple[str, tuple[str, ...]]:
    """The transport of a place in the words of policy.json, and the scopes that it falls under, the narrowest first."""
    if isinstance(place, Reference):
        return "docker", docker_scopes(place)
    if place.transport == _OTHER_STORE:
        return place.transport, store_scopes(place.where)
    if place.transport in _BY_NAME:
        try:
            return place.transport, docker_scopes(Reference.parse(place.where))
        except InvalidReference:  # an ID
            return place.transport, ()
    return place.transport, file_scopes(place.transport, place.where)


def docker_scopes(reference: Reference) -> tuple[str, ...]:
    """The scopes that a name in a registry falls under, the narrowest first: itself, its parents, its domains."""
    identity = f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"
    parts = reference.name.split("/")
    parents = tuple("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    labels = reference.registry.rpartition(":")[0] or reference.registry
    domains = labels.split(".")
    return (identity, *parents, *("*." + ".".join(domains[start:]) for start in range(1, len(domains))))


def store_scopes(where: str) -> tuple[str, ...]:
    """The scopes of an image in another store, written as [DRIVER@ROOT]NAME; none if it does not say which store."""
    inside, _, name = where.removeprefix("[").partition("]")
    driver, _, rest = inside.rpartition("@")
    root = rest.partition(":")[0].partition("+")[0]
    if not driver or not root:
        return ()
    store = f"[{driver}@{root}]"
    try:
        names = tuple(one for one in docker_scopes(Reference.parse(name)) if not one.startswith("*"))
    except InvalidReference:  # an ID
        names = ()
    return (*(f"{store}{one}" for one in names), store, f"[{root}]")


def file_scopes(transport: str, path: str) -> tuple[str, ...]:
    """The scopes that an image in a file or directory falls under: the resolved path and its parents but /."""
    if not _is_by_path(transport):
        return ()
    resolved = Path(os.path.realpath(path))
    return tuple(str(place) for place in (resolved, *resolved.parents) if str(place) != "/")


def parse(text: str, file: str) -> Policy:
    """The policy in `text`; InvalidValue naming `file` for anything that is none, unknown keys included."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"not JSON ({error}): {file}") from error
    if not isinstance(value, dict) or value.keys() - {"default", "transports"} or "default" not in value:
        raise InvalidValue(f"a policy is an object of default and, perhaps, transports: {file}", hint=_unknown(value))
    transports = _object(value.get("transports", {}), "transports", file)
    return Policy(
        file,
        _rules(value["default"], f"default of {file}"),
        {
            transport: {
                _scope(transport, scope, file): _rules(rules, f"{_place(transport, scope)} of {file}")
                for scope, rules in _object(scopes, f"transports.{transport}", file).items()
            }
            for transport, scopes in transports.items()
        },
    )


def _place(transport: str, scope: str) -> str:
    return f"transports.{transport}.{json.dumps(scope, ensure_ascii=False)}"


def _is_by_path(transport: str) -> bool:
    return transport in TRANSPORTS and TRANSPORTS[transport].has_path_scopes


def _exists(file: Path) -> bool:
    """Whether there is anything of this name: what cannot be read is an error, never no policy."""
    return os.path.lexists(file)


def _read(file: Path) -> str:
    try:
        data = read_input(file, "policy.json")
    except FileNotFoundError as error:
        raise NotFound(f"no such policy.json: {file}") from error
    except OSError as error:
        raise BuildaError(f"policy.json cannot be read, {(error.strerror or str(error)).lower()}: {file}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(f"not UTF-8: {file}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"two keys are {key!r}")
        found[key] = value
    return found


def _unknown(value: object) -> str | None:
    keys = sorted(value.keys() - {"default", "transports"}) if isinstance(value, dict) else []
    return f"it has {', '.join(map(repr, keys))}" if keys else None


def _object(value: object, where: str, file: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"{where} is not an object in {file}")
    return value


def _scope(transport: str, scope: str, file: str) -> str:
    """`scope` if it could ever match: a rule that never applies would be a hole."""
    if _is_by_path(transport) and scope and (scope == "/" or os.path.normpath(scope) != scope or scope[0] != "/"):
        hint = 'the scope of a whole transport is ""' if scope == "/" else None
        raise InvalidValue(f"a scope of {transport} is an absolute path without . and .. in {file}: {scope}", hint=hint)
    if transport in TRANSPORTS and scope and not (_is_by_path(transport) or TRANSPORTS[transport].by_name):
        raise InvalidValue(f'{transport} has the scope "" only in {file}: {scope}')
    if transport == "docker" and ("//" in scope or scope.startswith("/") or scope.endswith("/")):
        raise InvalidValue(f"a scope of docker is a name, or the beginning of one, in {file}: {scope}")
    return scope


def _rules(value: object, where: str) -> Rules:
    if not isinstance(value, list) or not value:
        raise InvalidValue(f"not an array of one or more rules: {where}")
    return tuple(_rule(rule, where) for rule in value)


def _rule(value: object, where: str) -> Requirement:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str):
        raise InvalidValue(f"a rule is not an object with a type in {where}")
    if kind not in _KEYS:
        raise InvalidValue(f"unknown type of a rule in {where}: {kind}", hint=f"it is {', '.join(_KEYS)}")
    unknown = sorted(value.keys() - {"type"} - _KEYS[kind])
    if unknown:
        raise InvalidValue(f"{kind} has no key {unknown[0]!r} in {where}")
    match kind:
        case "signedBy":
            return _signed_by(value, where)
        case "sigstoreSigned":
            return _sigstore_signed(value, where)
        case "reject":
            return Reject()
        case "signedBaseLayer":
            return SignedBaseLayer()
        case _:
            return Accept()


def _signed_by(value: Mapping[str, Any], where: str) -> SignedBy:
    if value.get("keyType") != "GPGKeys":
        raise InvalidValue(f"keyType of signedBy must be GPGKeys in {where}: {value.get('keyType')!r}")
    keys = _keys(value, _GPG_KEYS, where)
    if keys is None:
        raise InvalidValue(f"signedBy has no key in {where}", hint=f"give it one of {', '.join(_GPG_KEYS)}")
    return SignedBy(keys, _identity(value, where))


def _sigstore_signed(value: Mapping[str, Any], where: str) -> SigstoreSigned:
    keys, rekor = _keys(value, _SIGSTORE_KEYS, where), _keys(value, _REKOR_KEYS, where)
    if (keys is not None) + ("fulcio" in value) + ("pki" in value) != 1:
        choices = ", ".join((*_SIGSTORE_KEYS, "fulcio", "pki"))
        raise InvalidValue(f"sigstoreSigned needs exactly one of keys, fulcio and pki in {where}", hint=choices)
    fulcio = _fulcio(value["fulcio"], where) if "fulcio" in value else None
    pki = _pki(value["pki"], where) if "pki" in value else None
    if fulcio is not None and rekor is None:
        raise InvalidValue(
            f"sigstoreSigned with fulcio needs the key of a log in {where}", hint=f"one of {', '.join(_REKOR_KEYS)}"
        )
    if pki is not None and rekor is not None:
        raise InvalidValue(f"sigstoreSigned with pki cannot have a rekor key in {where}")
    return SigstoreSigned(keys, fulcio, rekor, _identity(value, where), pki)


def _pki(value: object, where: str) -> Pki:
    known = {"caRootsPath", "caRootsData", "caIntermediatesPath", "caIntermediatesData", *_SUBJECTS}
    if not isinstance(value, dict) or value.keys() - known:
        raise InvalidValue(f"pki is an object of {', '.join(sorted(known))} in {where}")
    roots = _keys(value, ("caRootsPath", "caRootsData"), where)
    subjects = [value.get(name) for name in _SUBJECTS]
    if roots is None or not any(subjects) or any(one is not None and not isinstance(one, str) for one in subjects):
        raise InvalidValue(f"pki needs caRootsPath or caRootsData, and {' or '.join(_SUBJECTS)}, in {where}")
    email, hostname = (one or None for one in subjects)
    return Pki(roots, _keys(value, ("caIntermediatesPath", "caIntermediatesData"), where), email, hostname)


def _fulcio(value: object, where: str) -> Fulcio:
    if not isinstance(value, dict) or value.keys() - {"caPath", "caData", "oidcIssuer", "subjectEmail"}:
        raise InvalidValue(f"fulcio is an object of caPath or caData, oidcIssuer and subjectEmail in {where}")
    authority = _keys(value, ("caPath", "caData"), where)
    issuer, email = value.get("oidcIssuer"), value.get("subjectEmail")
    if authority is None or not isinstance(issuer, str) or not isinstance(email, str) or not (issuer and email):
        raise InvalidValue(f"fulcio needs caPath or caData, oidcIssuer and subjectEmail in {where}")
    return Fulcio(authority, issuer, email)


def _identity(value: Mapping[str, Any], where: str) -> Identity:
    return parse_identity(value["signedIdentity"], where) if "signedIdentity" in value else DEFAULT


def _keys(value: Mapping[str, Any], names: tuple[str, ...], where: str) -> Keys | None:
    """The keys under one of these names; None without any. A name that ends in s has a list."""
    said = [name for name in names if name in value]
    if not said:
        return None
    if len(said) > 1:
        raise InvalidValue(f"only one of {' and '.join(said)} can be given in {where}")
    name = said[0]
    items = value[name] if name.endswith("s") else [value[name]]
    if not isinstance(items, list) or not items or not all(isinstance(item, str) and item for item in items):
        raise InvalidValue(f"{name} is not {'a list of texts' if name.endswith('s') else 'a text'} in {where}")
    if "Path" in name:
        return Keys(paths=tuple(items))
    try:
        return Keys(data=tuple(base64.b64decode(item, validate=True) for item in items))
    except (binascii.Error, ValueError) as error:
        raise InvalidValue(f"{name} is not base64 in {where}: {error}") from error


class Row(NamedTuple):
    """One rule in words; `-` where there is nothing to say."""

    transport: str
    scope: str
    type: str
    keys: str
    identity: str


def listed(policy: Policy) -> list[Row]:
    """All rules of a policy, the default first."""
    rows = [_row("default", "-", rule) for rule in policy.default]
    for transport, scopes in policy.transports.items():
        rows += [_row(transport, scope or "all", rule) for scope, rules in scopes.items() for rule in rules]
    return rows


def _row(transport: str, scope: str, rule: Requirement) -> Row:
    if not isinstance(rule, SignedBy | SigstoreSigned):
        return Row(transport, scope, rule.type, "-", "-")
    identity = rule.identity if isinstance(rule.identity, str) else str(rule.identity)
    return Row(transport, scope, rule.type, _keys_shown(rule), identity)


def _keys_shown(rule: Signed) -> str:
    if rule.keys is not None:
        return ", ".join(rule.keys.paths) or "in the policy"
    if isinstance(rule, SigstoreSigned) and rule.fulcio is not None:
        return f"{rule.fulcio.email} ({rule.fulcio.issuer})"
    pki = rule.pki if isinstance(rule, SigstoreSigned) else None
    return " ".join(filter(None, (pki.email, pki.hostname))) if pki is not None else "-"
