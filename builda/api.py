"""Everything wired together: the store, isolation, registries and the builder over them.

with builda.open_builder() as builder:
    container = builder.from_image("docker.io/library/debian:bookworm")
    builder.run(container, Run(args=("apt-get", "update")))
    image = builder.commit(container, CommitOptions(destination="app:1", remove=True))
"""

from __future__ import annotations

import os
from _thread import allocate_lock  # threading takes a millisecond to import
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from builda.errors import BuildaError, StoreUnavailable, Unsupported
from builda.events import Emit, Warned, ignore
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeVar

    from builda.builder.builder import Builder
    from builda.builder.imageoptions import RegistryAccess
    from builda.builder.remote import Carrier, Download, SignOptions, Verified, VerifyOptions
    from builda.host.modes import Place
    from builda.host.probe import Mode
    from builda.isolation.spec import Isolation
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.oci.reference import Reference
    from builda.places import Places
    from builda.plan import RunOptions
    from builda.registry.registryclient import RegistryClient
    from builda.store.layout import Damaged
    from builda.store.store import Store
    from builda.transfer.copyimage import ImageSink, ImageSource
    from builda.transfer.locate import Location
    from builda.trust.policy import Policy, Wanted
    from builda.trust.registriesd import Lookaside
    from builda.trust.signer import Keeper, Signer
    from builda.trust.verify import Shelf

    T = TypeVar("T")


class NamedFiles(NamedTuple):
    """Files and directories that are read instead of the machine's and the user's own; None for these."""

    conf: str | None = None  # registries.conf
    drop_ins: str | None = None  # registries.conf.d
    aliases: str | None = None  # short-name-aliases.conf
    mounts: str | None = None  # mounts.conf


@contextmanager
def open_builder(
    root: Path | str | None = None,
    runroot: Path | str | None = None,
    *,
    driver: str | None = None,
    emit: Emit = ignore,
    environ: Mapping[str, str] | None = None,
    registries_conf: str | None = None,
    mode: str | None = None,
) -> Iterator[Builder]:
    """A builder over the store at `root`, by default root's or the user's own; closed at the end of the block.

    `emit` is called, perhaps by other threads, with what happens. Without `mode` this process is not changed, and it
    needs root, or to be run in `builda unshare`. With `auto`, or the name of a mode, it goes where that mode works,
    for good, which may be a user namespace; it must have one thread then. In a script that `builda session` runs, what
    is made belongs to the session.
    """
    from builda.store.layout import default_places

    env = os.environ if environ is None else environ
    uid = os.geteuid()
    places = default_places(env, uid)
    where, volatile = root or places[0], runroot or places[1]
    place = None
    if mode is not None:
        from builda.host.modes import enter, parse_mode

        place = enter(parse_mode(mode), str(volatile), composing=True)

    def warn(error: Damaged) -> None:
        emit(Warned(message=str(error), hint=error.hint))

    with (
        open_store(where, volatile, driver=driver, place=place, warn=warn) as store,
        builder_over(store, emit=emit, environ=env, files=NamedFiles(registries_conf), uid=uid) as builder,
    ):
        store.waits.tell = emit
        if env.get("BUILDA_SESSION"):
            from builda.session.lease import membership

            session = membership(store.layout, env)
            if session is not None:
                store.join(session)
        yield builder


def open_store(
    root: Path | str,
    runroot: Path | str,
    *,
    driver: str | None,
    place: Place | None,
    warn: Callable[[Damaged], None] | None = None,
) -> Store:
    """Open the store for a process that works in `place` (None: it never asked). `warn` is told of damaged records.

    Without `driver`, trees are made only when something needs one.
    """
    from builda.host.modes import fuse_refused, overlay_refused
    from builda.store.claims import Claim
    from builda.store.drivers import DRIVERS, LISTS
    from builda.store.store import Store

    lists = driver is None
    if place is None:
        return Store.open(root, runroot, driver=driver, lists=lists, warn=warn)
    mode = place.mode
    no_run = place.no_run or _no_records(mode, root)
    claim = Claim(
        mode=mode,
        ids=place.ids,
        overlay_refused=overlay_refused if mode.mounts else lambda _: f"mode {mode} mounts nothing",
        mounts=mode.mounts,
        chroots=mode.chroots,
        no_run=no_run,
        no_others=place.no_others,
    )
    chosen = driver if no_run is None else LISTS.name
    asked = DRIVERS.get(chosen or "")
    if asked is not None and asked.is_served and (lacking := fuse_refused(mode)) is not None:
        raise _without_fuse(lacking, root)
    store = Store.open(root, runroot, driver=chosen, claim=claim, lists=lists, warn=warn)
    if store.snapshots.driver.needs_mounts and not claim.mounts:
        raise StoreUnavailable(
            f"store has driver {store.snapshots.driver.name}, and mode {mode} mounts nothing: {store.root}",
            hint="use another --root, or --mode direct where that works",
        )
    return store


def _no_records(mode: Mode, root: Path | str) -> BuildaError | None:
    """Why a store at `root` cannot have trees in a mode that records owners; None if it can."""
    if not mode.records_owners:
        return None
    from builda.linux.directories import nearest
    from builda.linux.userattributes import WHERE, WHY_NONE, keeps_attributes

    if keeps_attributes(nearest(os.fspath(root))):
        return None
    return Unsupported(
        f"mode {mode} needs a store that records owners, and {WHY_NONE}: {os.fspath(root)}",
        hint=f"use another --root (BUILDA_ROOT): {WHERE}",
    )


def _without_fuse(lacking: str, root: Path | str) -> StoreUnavailable:
    return StoreUnavailable(
        f"driver fuse-overlayfs cannot be used for the store, {lacking}: {root}",
        hint="a pod gets /dev/fuse from a device plugin; a store on a volume needs neither (another --root)",
    )


def isolation_name(text: str | None, *, runtime: str | None = None) -> str | None:
    """The isolation that --isolation calls `text`; without it the one that uses OCI runtimes if a `runtime` is named.

    None if neither is given. InvalidValue for an unknown one.
    """
    if text is None and runtime is None:  # most command lines, which need not import the table
        return None
    from builda.isolation import kinds

    return kinds.isolation_name(text, has_runtime=runtime is not None)


def keep_in_memory(store: Store) -> bool:
    """Keep new trees in memory if the store takes no overlay; whether it does so.

    The trees end with this process, which must have one thread. No named container or image may be made on such a tree.
    """
    from builda.host.modes import hold_memory

    if not (store.snapshots.driver.copies and store.can_mount):
        return False
    place = store.layout.path("memory")
    os.makedirs(place, mode=0o700, exist_ok=True)
    limit = hold_memory(place)
    if limit is not None:
        store.snapshots.keep_in_memory(place, limit)
    return limit is not None


@contextmanager
def builder_over(
    store: Store,
    *,
    emit: Emit = ignore,
    environ: Mapping[str, str],
    files: NamedFiles = NamedFiles(),  # noqa: B008  # an immutable value
    uid: int | None = None,
    tracing: bool = False,
) -> Iterator[Builder]:
    """A builder over an open store; its connections and threads end with the block.

    `uid` is whose credentials are used: in a user namespace that is not this process's own. With `tracing`, `emit`
    also gets what was decided and why.
    """
    from builda.builder.builder import Builder

    def isolation(options: RunOptions) -> Isolation:
        from pathlib import Path

        from builda.isolation import isolation_for

        return isolation_for(
            options.isolation,
            state=Path(store.layout.runroot),
            can_mount=store.can_mount,
            can_chroot=store.can_chroot,
            runtime=options.runtime,
            runtime_flags=options.runtime_flags,
        )

    remote = Registries(emit=emit, environ=environ, files=files, uid=uid, tracing=tracing)
    try:
        with Builder(
            store,
            remote=remote,
            isolation=isolation,
            emit=emit,
            now=store.now,
            environ=environ,
            defaults=lambda: _defaults(remote.places(), files.mounts, emit),
            configured_environ=lambda: _configured_environ(remote.places()),
            tracing=tracing,
        ) as builder:
            yield builder
    finally:
        remote.close()


class Registries:
    """The builder's `Remote`: images in files, and a registry client for each way to reach registries.

    Clients and the policy are made when first needed.
    """

    def __init__(
        self,
        *,
        emit: Emit,
        environ: Mapping[str, str],
        files: NamedFiles,
        uid: int | None = None,
        tracing: bool = False,
    ) -> None:
        self._emit = emit
        self._tracing = tracing
        self._environ = environ
        self._files = files
        self._uid = uid
        self._lock = allocate_lock()  # stages of one build ask at the same time
        self._clients: dict[RegistryAccess, RegistryClient] = {}
        self._policies: dict[str | None, Policy | None] = {}

    def close(self) -> None:
        """No connection stays open."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def candidates(self, name: str) -> tuple[Reference, ...]:
        """The references that a name may mean, best first."""
        from builda.builder.imageoptions import RegistryAccess

        return self._client(RegistryAccess()).candidates(name)

    def tags(self, reference: Reference, access: RegistryAccess) -> tuple[str, ...]:
        """All tags of the repository that `reference` names."""
        return self._client(access).tags(reference)

    def repositories(self, registry: str, access: RegistryAccess) -> tuple[str, ...]:
        """The repositories of a registry, as far as it shows them."""
        return self._client(access).repositories(registry)

    def source(self, place: Reference | Location, access: RegistryAccess) -> ImageSource:
        """The image at `place`; PolicyRejected if policy.json does not allow it. No image comes in any other way.

        Of an image that needs signatures, they are verified when its manifest is read.
        """
        wanted = self._wanted(place, access)
        source = self._opened(place, access)
        return source if wanted is None else self._guarded(source, place, access, wanted)

    def _opened(self, place: Reference | Location, access: RegistryAccess) -> ImageSource:
        """The image at `place`, whatever policy.json says."""
        from builda.transfer.locate import Location, open_source

        return open_source(place) if isinstance(place, Location) else self._client(access).source(place)

    def _wanted(self, place: Reference | Location, access: RegistryAccess) -> Wanted | None:
        """The signatures that policy.json wants of the image."""
        from builda.trust.policy import Policy, scopes_of

        with self._lock:
            if access.policy not in self._policies:
                self._policies[access.policy] = Policy.load(self.places(), _path(access.policy))
            policy = self._policies[access.policy]
        return None if policy is None else policy.check(*scopes_of(place), str(place))

    def _guarded(
        self, source: ImageSource, place: Reference | Location, access: RegistryAccess, wanted: Wanted
    ) -> ImageSource:
        from builda.transfer.locate import Location
        from builda.trust.guard import GuardedSource
        from builda.trust.verify import Subject, accepted

        shelf = self._shelf(place, access)
        identity = None if isinstance(place, Location) else place
        return GuardedSource(source, lambda data: accepted(wanted, Subject(str(place), identity, data), shelf))

    def _shelf(self, place: Reference | Location, access: RegistryAccess, *, attached: bool | None = None) -> Shelf:
        """The place of the image's signatures. `attached`: read cosign's too (None: as registries.d says)."""
        from builda.transfer.locate import Location
        from builda.trust import registriesd, shelves

        if isinstance(place, Location):
            return shelves.of_file(place)
        client = self._client(access)
        places = tuple(one.reference for one in client.registries.pull_sources(place))
        conf = registriesd.Signatures.load(self.places())
        return shelves.RegistryShelf(place, places, conf, client.fetch_url, client.source, attached=attached)

    def signing(self, place: Reference | Location, access: RegistryAccess) -> Callable[[ImageSink], ImageSink]:
        """Make of the sink for `place` one that signs each manifest by the keys of `access` before it is published.

        Unsupported for a place that has no signatures, NotFound or InvalidValue for keys that cannot sign.
        """
        from builda.trust.signer import SigningSink

        keeper, signers, identity = self._signing(place, access)
        return lambda sink: SigningSink(sink, keeper, signers, identity)

    def carrier(self, source: Reference | Location, access: RegistryAccess) -> Carrier:
        """An object that copies the signatures of the image at `source` to where the image is copied."""
        from builda.trust.signer import SignatureCarrier

        def keeper(place: Reference | Location, access: RegistryAccess) -> Keeper:
            return self._keeper(place, access, None, has_files=False)

        return SignatureCarrier(self._shelf(source, access), keeper)

    def attached(
        self, source: Reference, access: RegistryAccess, destination: Reference, there: RegistryAccess
    ) -> Callable[[Digest], int]:
        """Make a function that copies what is attached to a manifest; it returns the number of manifests found."""
        from builda.trust.copyattached import Side, copy_attached

        def side(reference: Reference, access: RegistryAccess) -> Side:
            client = self._client(access)
            return Side(reference, client.source, client.sink)

        ends = side(source, access), side(destination, there)
        return lambda digest: copy_attached(digest, *ends, self._emit)

    def sign(self, place: Reference | Location, access: RegistryAccess, how: SignOptions) -> tuple[Descriptor, ...]:
        """The image that is at `place` has signatures by the keys of `access`; what was signed.

        No policy is asked: nothing but the manifest is read.
        """
        from builda.oci.manifest import Index, parse
        from builda.transfer.copyimage import child_of
        from builda.trust.payload import Claim
        from builda.trust.signer import sign

        keeper, signers, identity = self._signing(place, access, how)
        source = self._opened(place, access)
        descriptor, data = source.manifest()
        document = parse(data, descriptor.media_type)
        inner = document.manifests if how.every and isinstance(document, Index) else ()
        for entry in inner:
            child_of(source, entry)
        signed = (*inner, descriptor)
        for one in signed:
            sign(keeper, signers, Claim(one.digest, identity))
        if how.every and isinstance(document, Index):
            keeper.attest(document, signers)
        keeper.published(descriptor.digest)
        return signed

    def verified(self, place: Reference | Location, access: RegistryAccess, how: VerifyOptions) -> Verified:
        """The signatures by which the image is accepted; PolicyRejected if it lacks some that are required.

        If a list lacks signatures, those of its image for the platform count.
        """
        from builda.builder.remote import Proof, Verified
        from builda.errors import InvalidValue, PolicyRejected
        from builda.oci.manifest import Index, choose, parse
        from builda.transfer.copyimage import child_of
        from builda.transfer.locate import Location
        from builda.trust import policy
        from builda.trust.verify import Subject, accepted

        wanted = policy.of_key(how.key, how.identity) if how.key is not None else self._wanted(place, access)
        if wanted is None:
            hint = "name the key with --key, or a policy with --signature-policy"
            raise InvalidValue(f"policy wants no signature of the image: {place}", hint=hint)
        source, shelf = self._opened(place, access), self._shelf(place, access, attached=how.key is not None or None)
        identity = None if isinstance(place, Location) else place

        def proofs(data: bytes) -> tuple[Proof, ...]:
            return tuple(Proof(*one) for one in accepted(wanted, Subject(str(place), identity, data), shelf))

        descriptor, data = source.manifest()
        try:
            return Verified(descriptor, proofs(data))
        except PolicyRejected:
            document = parse(data, descriptor.media_type)
            if not isinstance(document, Index):
                raise
        entry = choose(document, how.platform)
        return Verified(entry, proofs(child_of(source, entry)))

    def _signing(
        self, place: Reference | Location, access: RegistryAccess, how: SignOptions | None = None
    ) -> tuple[Keeper, Sequence[Signer], str]:
        """Where to write signatures of `place`, the signers, the name to sign. `how`: the image is there already."""
        from builda.builder.imageoptions import Signing
        from builda.transfer.locate import Location
        from builda.trust import signer

        said = access.signing or Signing()
        keeper = self._keeper(place, access, how, has_files=said.fingerprint is not None)
        identity = signer.identity_of(said.identity, None if isinstance(place, Location) else place)
        keys = signer.signers(
            fingerprint=said.fingerprint,
            key=said.sigstore_key,
            passphrase_file=said.passphrase_file,
            environ=self._environ,
        )
        return keeper, keys, identity

    def _keeper(
        self, place: Reference | Location, access: RegistryAccess, how: SignOptions | None, *, has_files: bool
    ) -> Keeper:
        """Where signatures go; those that are files need a storage that can be written to."""
        from builda.errors import Unsupported
        from builda.transfer.locate import Location
        from builda.trust import registriesd, signer

        if not isinstance(place, Location):
            client, conf = self._client(access), registriesd.Signatures.load(self.places())
            own = None if how is None or how.directory is None else registriesd.directory(how.directory)

            def storage() -> Lookaside:
                return own or conf.to_write(place)

            if has_files:
                storage()  # which refuses one that cannot be written to, before anything is done
            return signer.RegistryKeeper(place, storage, client.source, client.sink)
        if place.transport != "dir":
            where = "the store" if place.in_store else f"{place.transport}:"
            raise Unsupported(
                f"images have no signatures in {where}", hint="sign them when they are pushed to a registry"
            )
        return signer.DirectoryKeeper(place.where, is_there=how is not None)

    def sink(self, reference: Reference, access: RegistryAccess, mount_from: tuple[Reference, ...] = ()) -> ImageSink:
        """A sink that pushes an image as `reference`."""
        return self._client(access).sink(reference, mount_from=mount_from)

    def delete(self, reference: Reference, access: RegistryAccess) -> Descriptor | None:
        """Delete what the reference means from the registry; its descriptor, None if nothing was there."""
        return self._client(access).delete(reference)

    def fetch(self, url: str, access: RegistryAccess) -> AbstractContextManager[Download]:
        """The body of `url`."""
        return self._client(access).fetch_url(url)

    def places(self) -> Places:
        """The directories with this user's and this machine's configuration."""
        from builda.places import Places

        return Places(self._environ, os.geteuid() if self._uid is None else self._uid)

    def _client(self, access: RegistryAccess) -> RegistryClient:
        with self._lock:
            if access not in self._clients:
                self._clients[access] = self._new_client(access)
            return self._clients[access]

    def _new_client(self, access: RegistryAccess) -> RegistryClient:
        from builda import containersconf
        from builda.registry.registryclient import RegistryClient, RegistryOptions

        said = containersconf.load(self.places())
        options = RegistryOptions(
            authfile=_path(access.authfile),
            creds=access.creds,
            anonymous=access.anonymous,
            cert_dir=_path(access.cert_dir),
            tls_verify=access.tls_verify,
            retry=_first(access.retry, said.retry, 3),
            retry_delay=_first(access.retry_delay, said.retry_delay, None),
            registries_conf=_path(self._files.conf),
            drop_ins=_path(self._files.drop_ins),
            short_name_aliases=_path(self._files.aliases),
        )
        environ = {**said.env, **self._environ}
        return RegistryClient(options, self._emit, environ=environ, uid=self._uid, tracing=self._tracing)


def _configured_environ(places: Places) -> Mapping[str, str]:
    """The variables that containers.conf gives to builda itself, which its own environment overrides."""
    if not places.says_how_to_run():
        return {}
    from builda import containersconf

    return containersconf.load(places).env


def _defaults(places: Places, mounts: str | None, emit: Emit) -> RunOptions:
    """The defaults for commands in containers.conf and mounts.conf. Warns of keys that have no effect."""
    from builda.plan import RunOptions
    from builda.values import replace

    if mounts is None and not places.says_how_to_run():
        return RunOptions()
    from builda import containersconf
    from builda.events import Warned
    from builda.linux.caps import DEFAULT, parse_capability

    said = containersconf.load(places)
    for key, file in said.unheard.items():
        emit(Warned(message=f"{key} has no effect: {file}"))
    run = replace(said.run, volumes=(*said.run.volumes, *containersconf.subscriptions(places, _path(mounts))))
    with _blaming("containers.conf"):
        if said.capabilities is not None:
            listed = [parse_capability(name) for name in said.capabilities]
            added = tuple(name for name in listed if name not in DEFAULT)
            run = replace(run, cap_add=added, cap_drop=tuple(name for name in DEFAULT if name not in listed))
        if run != RunOptions():
            from builda.builder.run.runcheck import check

            check(run)
    return run


@contextmanager
def _blaming(file: str) -> Iterator[None]:
    """Errors end in the name of the file that says so."""
    try:
        yield
    except BuildaError as error:
        error.args = (f"{error} ({file} says so)",)
        raise


def _first(said: T | None, configured: T | None, default: T) -> T:
    return next((value for value in (said, configured) if value is not None), default)


def _path(text: str | None) -> Path | None:
    if text is None:
        return None
    from pathlib import Path

    return Path(text)
