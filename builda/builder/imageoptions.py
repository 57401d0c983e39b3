"""The options of `from`, `commit`, `pull` and `push`, as values; `run`, `copy` and `config` take steps."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from builda.errors import InvalidValue
from builda.runoptions import RunOptions
from builda.values import Protocol, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Literal, TypeAlias

    from builda.oci.descriptor import Platform
    from builda.oci.edits import ConfigEdit
    from builda.oci.mediatype import Compression
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image

PullPolicy: TypeAlias = "Literal['missing', 'always', 'never', 'newer']"
ImageFormat: TypeAlias = "Literal['oci', 'docker']"

_NOTHING_SAID = RunOptions()
_POLICIES: dict[str, PullPolicy] = {
    "missing": "missing",
    "ifmissing": "missing",
    "notpresent": "missing",
    "always": "always",
    "true": "always",
    "": "always",
    "never": "never",
    "false": "never",
    "newer": "newer",
    "ifnewer": "newer",
}
_FORMATS: dict[str, ImageFormat] = {"oci": "oci", "docker": "docker", "v2s2": "docker"}


def parse_policy(text: str) -> PullPolicy:
    """The pull policy that Buildah's users write `text` for."""
    try:
        return _POLICIES[text.lower()]
    except KeyError:
        raise InvalidValue(f"unknown pull policy: {text}", hint="it is missing, always, never or newer") from None


def parse_format(text: str) -> ImageFormat:
    """The image format that Buildah's users write `text` for."""
    try:
        return _FORMATS[text.lower()]
    except KeyError:
        raise InvalidValue(f"unknown image format: {text}", hint="it is oci or docker") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """The keys that sign what is pushed; `identity` is the name in the signatures (None: that of the destination)."""

    fingerprint: str | None = None  # a key of the GPG keyring
    sigstore_key: str | None = None  # a file
    passphrase_file: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryAccess:
    """The options for reaching registries; for None the configuration files and the environment decide."""

    authfile: str | None = None
    creds: str | None = None  # user:password
    anonymous: bool = False  # no credentials, whatever the files have
    cert_dir: str | None = None
    tls_verify: bool | None = None
    retry: int | None = None
    retry_delay: float | None = None  # seconds; None: exponential back-off
    policy: str | None = None  # the policy.json that decides which images may be taken
    signing: Signing | None = None  # what signs the images that go to a registry or directory


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """`pull`: when an image is fetched, and which of its platforms (None: this machine's)."""

    policy: PullPolicy = "missing"
    platform: Platform | None = None
    access: RegistryAccess = RegistryAccess()
    moves_names: bool = False  # a name that is given with an archive or layout is taken from the image that has it


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheChoice:
    """How the steps in a working container are looked up; the fields are those of the store's `StepCache`."""

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    explains: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FromOptions:
    """`from`: the working container's name and format, how its base is pulled, and how its commands will run."""

    name: str | None = None  # None: <last part of the image's name>-<suffix>, with -1, -2 … when taken
    suffix: str = "working-container"
    cache: CacheChoice | None = None  # None: steps are neither looked up nor remembered
    format: ImageFormat = "oci"
    pull: PullOptions = PullOptions()
    run: RunOptions = _NOTHING_SAID


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """The attestations to make for an image: SBOMs and provenance in its index, SBOMs in files.

    With `sboms` or `provenance` the result is an index of the image and its attestations.
    """

    sboms: tuple[str, ...] = ()  # formats of those that are attached
    provenance: Literal["min", "max"] | None = None
    builder: str | None = None  # the id that the provenance gives the builder
    form: str = "cyclonedx-json"  # of the files
    output: str | None = None  # files of this machine
    purl_output: str | None = None
    image_output: str | None = None  # files in the image
    image_purl_output: str | None = None

    @property
    def is_attached(self) -> bool:
        """Whether something is put into an index beside the image."""
        return bool(self.sboms or self.provenance)

    @property
    def wants_contents(self) -> bool:
        """Whether the packages of the image have to be known."""
        files = (self.output, self.purl_output, self.image_output, self.image_purl_output)
        return bool(self.sboms) or any(files)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOptions:
    """The options of `commit`.

    `destination` is a name for the store or carries a transport (`docker://`, `oci:` …); None leaves the image unnamed.
    """

    destination: str | None = None
    names: tuple[str, ...] = ()  # further names in the store
    manifest: str | None = None  # append the image to this index, made when missing
    format: ImageFormat | None = None  # None: the working container's
    squash: bool = False
    remove: bool = False  # --rm
    timestamp: int | None = None  # seconds: every time in the image
    source_date_epoch: int | None = None  # seconds: the times of the configuration; layers are clamped to it
    rewrite_timestamp: bool | None = None  # None: whenever source_date_epoch is given
    created_annotation: bool = True
    identity_label: bool = True
    changes: tuple[ConfigEdit, ...] = ()  # containerfile.edits_of() makes them of instructions
    config: bytes | None = None  # a JSON image configuration to merge
    add_files: tuple[str, ...] = ()  # host source[:destination]
    annotations: tuple[tuple[str, str], ...] = ()
    inherit_annotations: bool = True  # of the base image
    unset_annotations: tuple[str, ...] = ()
    unset_env: tuple[str, ...] = ()
    unset_labels: tuple[str, ...] = ()
    omit_history: bool = False
    compression: Compression = "gzip"
    compression_level: int | None = None  # None: the level pinned for that compression
    attest: Attest | None = None  # for a commit; of a build's image it is said when the build is done
    access: RegistryAccess = RegistryAccess()
    check: Callable[[Image], None] | None = None  # is called before the image has a name, and may raise

    def __post_init__(self) -> None:
        if self.timestamp is not None and self.source_date_epoch is not None:
            raise InvalidValue("timestamp and source-date-epoch cannot both be given")

    @property
    def epoch(self) -> int | None:
        """The time that the configuration says, in seconds; None for now."""
        return self.timestamp if self.timestamp is not None else self.source_date_epoch

    @property
    def clamp(self) -> int | None:
        """New layers record no time later than this."""
        return self.source_date_epoch if self.rewrite_timestamp is not False else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions:
    """`push`: what may be changed on the way. The defaults change nothing: the digest pushed is the digest stored."""

    format: ImageFormat | None = None  # None: as stored
    compression: Compression | None = None  # None: as stored
    compression_level: int | None = None
    force_compression: bool = False
    added_compressions: tuple[Compression, ...] = ()  # of an index: its images again, compressed so
    alone: bool = False  # of an index: it without its images, which the registry has
    access: RegistryAccess = RegistryAccess()


class Travel(Protocol):
    """Fetches the cache mounts of a build from other machines, and stores them there again: `run.cachetravel`."""

    def of(self, platform: str) -> Travel:
        """The same for the build of another platform."""

    def turn(self, identity: str) -> AbstractContextManager[None]:
        """No other machine changes the cache during the block, where its place can keep it from that."""

    def arrive(self, identity: str, path: str) -> None:
        """Fetch the cache into the directory `path`; called before its first use in a build."""

    def leave(self) -> None:
        """Store the caches that were used; called when the build has succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The contexts, secrets and agents that a step only names; arguments of `run` and `copy` beside the step.

    `context` is where `Context` sources start and cannot leave. Without one a script's paths mean what they mean in its
    shell: absolute ones are the host's, relative ones start at the current directory.
    """

    context: Path | str | None = None
    ignore_file: Path | str | None = None  # rules for `context`
    named: Mapping[str, Path | str] = field(default_factory=dict)  # named contexts
    stages: Mapping[int, WorkingContainer] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ssh: Mapping[str, str] = field(default_factory=dict)  # id -> the agent's socket
    remembered: MutableMapping[tuple[int, int, int, int, int], bytes] | None = (
        None  # digests of files; copies add theirs
    )
    discard_writes: bool = False  # writes to a bound context are dropped: what a build promises
    keeps_caches: bool = True  # False: writes to cache mounts are dropped
    caches: Travel | None = None  # fetches cache mounts from other machines, and puts them there
    access: RegistryAccess = RegistryAccess()
