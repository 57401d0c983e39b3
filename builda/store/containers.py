"""Working containers: their records, their names, each reserved by creating its file, and the processes in them."""

from __future__ import annotations

import os
import time
from _thread import get_ident  # threading takes a millisecond to import
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from builda import jsontext
from builda.errors import AlreadyExists, CorruptContent, InUse, InvalidValue, NotFound, StoreUnavailable
from builda.linux.process import process_identity
from builda.oci.config import History, ImageConfig, config_to_json, parse_config, parse_history
from builda.oci.digest import Digest
from builda.oci.reference import is_tag
from builda.runoptions import NO_OPTIONS, RunOptions
from builda.store import layout, locks
from builda.store.layout import Damaged, Layout
from builda.values import dataclass, field, replace, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, Literal

    from builda.oci.descriptor import Descriptor
    from builda.store.waits import Waits

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenLayer:
    """A layer that was frozen above the base. `diff_id` and `blob` are None until its tar has been computed."""

    snapshot: str
    history: History
    diff_id: Digest | None = None
    blob: Descriptor | None = None
    empty: bool = False  # nothing was changed: it leaves a history entry only
    key: Digest | None = None  # of the remembered step whose layer it is
    partial: bool = False  # images get one layer of it and what is above it, down from the next one that is not partial


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCache:
    """The cache options of a working container, and the key of its present state."""

    key: Digest  # of all its layers
    sources: tuple[str, ...] = ()  # further caches in registries, as --cache-from names them
    targets: tuple[str, ...] = ()  # where its steps are pushed, as --cache-to names them
    tls_verify: bool | None = None
    authfile: str | None = None
    explains: bool = False  # whether to say why a step was not found


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingContainer:
    """The record of a working container; every primitive returns the new one."""

    id: str  # 64 hexadecimal digits
    name: str
    image: str  # as the user named it; "" for scratch
    image_id: Digest | None
    image_digest: Digest | None
    base: str | None  # committed snapshot of the image's topmost layer
    snapshot: str  # the active snapshot's key
    config: ImageConfig
    layers: tuple[FrozenLayer, ...] = ()
    history: tuple[History, ...] = ()  # entries without a layer since the last frozen one
    annotations: Mapping[str, str] = field(default_factory=dict)
    options: RunOptions = NO_OPTIONS
    format: Literal["oci", "docker"] = "oci"
    created: float = 0.0  # seconds since the epoch
    mount_point: str | None = None
    created_by: str | None = None  # history text of the next layer (`config --created-by`)
    comment: str | None = None  # comment of the next layer's history
    used: tuple[tuple[str, str, str], ...] = ()  # URI, algorithm and digest of what copies took from outside
    cache: StepCache | None = None  # None: its steps are neither looked up nor remembered

    @property
    def top(self) -> str | None:
        """The snapshot right under the working tree: the topmost frozen layer, or the base if there is none."""
        return (self.layers[-1].snapshot if self.layers else self.base) or None


class Containers:
    """The working containers of one store."""

    def __init__(self, where: Layout, report: Callable[[Damaged], None], waits: Waits | None = None) -> None:
        self._layout = where
        self._report = report
        self._waits = waits
        self._held: set[str] = set()  # containers whose lock this process holds
        self._trees: dict[str, int] = {}  # containers whose tree a thread of this process has locked, and the thread
        self._read: tuple[bytes, WorkingContainer] | None = None  # the record that was read last

    def path(self, container_id: str, *parts: str) -> str:
        """A path in a container's directory."""
        return self._layout.path("containers", container_id, *parts)

    def create(self, container: WorkingContainer, *, name: str | None, prefix: str) -> WorkingContainer:
        """Record a container under `name`, or under `prefix`, with `-1`, `-2` … added if that is taken.

        AlreadyExists when `name` is. No two processes get the same name.
        """
        named = self._reserve(container.id, name, prefix)
        made = replace(container, name=named)
        try:
            with layout.translated(self._layout.root):
                os.mkdir(self.path(made.id), 0o700)
            with self.lock(made, "lock"):  # which removing it will need, and could not make on a full disk
                self._write(made)
        except BaseException:
            self._remove_directory(made.id)
            self._release(named, made.id)
            raise
        return made

    def _reserve(self, container_id: str, name: str | None, prefix: str) -> str:
        if name is not None:
            _check_name(name)
            if not self._claim(name, container_id):
                raise self._taken(name)
            return name
        taken = set(os.listdir(self._layout.path("names"))) if self._is_taken(prefix) else set()
        for number in range(100_000):
            candidate = prefix if number == 0 else f"{prefix}-{number}"
            if layout.quote(candidate) not in taken and self._claim(candidate, container_id):
                return candidate
        raise AlreadyExists(f"no container name is free: {prefix}")

    def _taken(self, name: str) -> AlreadyExists:
        owner = self.find(name)
        by = f" by {owner.id[:12]}" if owner is not None else ""
        hint = "choose another, or remove that container"
        return AlreadyExists(f"container name is already in use{by}: {name}", hint=hint)

    def _is_taken(self, name: str) -> bool:
        """Whether a container has this name; False if a killed process reserved it and made no container."""
        path = self._layout.path("names", layout.quote(name))
        try:
            return self._is_container(_read_name(path))
        except FileNotFoundError:
            return False

    def _claim(self, name: str, container_id: str) -> bool:
        path = self._layout.path("names", layout.quote(name))
        try:
            layout.publish(self._layout, path, container_id.encode(), exclusive=True)
        except FileExistsError:
            return self._reclaim(path, container_id)
        return True

    def _reclaim(self, path: str, container_id: str) -> bool:
        """Take over a name whose container a killed process never made, or half removed."""
        from builda.store.leases import horizon

        with self.names_locked(), suppress(FileNotFoundError):
            made = os.stat(path).st_mtime
            if made < horizon(self._layout, time.time()) and not self._is_container(_read_name(path)):
                layout.publish(self._layout, path, container_id.encode())
                return True
        return False

    def _release(self, name: str, container_id: str) -> None:
        """Free the name, unless another container has it by now."""
        path = self._layout.path("names", layout.quote(name))
        with self.names_locked(), suppress(FileNotFoundError):
            if _read_name(path) == container_id:
                os.unlink(path)

    def release_stale(self, horizon: float) -> None:
        """Free the names of containers that are gone or renamed, unless a process is about to use them."""
        for name in layout.iter_names(self._layout.path("names")):
            path = self._layout.path("names", name)
            with self.names_locked(), suppress(FileNotFoundError):
                if os.stat(path).st_mtime < horizon and not self._is_called(_read_name(path), name):
                    os.unlink(path)

    def _is_called(self, container_id: str, quoted: str) -> bool:
        try:
            return layout.quote(self.load(container_id).name) == quoted
        except NotFound:
            return False
        except Damaged:  # it may be
            return True

    def _is_container(self, container_id: str) -> bool:
        return os.path.exists(self.path(container_id, "container.json"))

    def names_locked(self) -> AbstractContextManager[None]:
        """Lock held while a name is freed or moved. Creating one needs none, since link(2) is atomic."""
        return locks.brief(self._layout.path("locks", "names.lock"))

    def _write(self, container: WorkingContainer) -> None:
        layout.publish(self._layout, self.path(container.id, "container.json"), _dump(container))

    def update(self, container: WorkingContainer) -> WorkingContainer:
        """Write the record."""
        try:
            if self._is_container(container.id):
                self._write(container)
                return container
        except FileNotFoundError:
            pass
        raise NotFound(f"container not known: {container.name}", hint="it was removed meanwhile")

    @contextmanager
    def locked(self, container: WorkingContainer) -> Iterator[WorkingContainer]:
        """The current record, locked: no other process that takes this lock changes it during the block."""
        try:
            with self.lock(container, "lock"):
                current = self.load(container.id)
                self._held.add(container.id)
                try:
                    yield current
                finally:
                    self._held.discard(container.id)
        except FileNotFoundError as error:
            if os.path.exists(self.path(container.id)):
                raise
            raise NotFound(f"container not known: {container.name}") from error

    @contextmanager
    def tree_locked(self, container: WorkingContainer) -> Iterator[None]:
        """Hold the lock of the container's tree. A thread that holds it already may take it again."""
        if self._trees.get(container.id) == get_ident():
            yield
            return
        with self.lock(container, "tree.lock"):
            self._trees[container.id] = get_ident()
            try:
                yield
            finally:
                del self._trees[container.id]

    def holds_tree(self, container: WorkingContainer) -> bool:
        """Whether this thread holds the lock of the container's tree."""
        return self._trees.get(container.id) == get_ident()

    @contextmanager
    def lock(self, container: WorkingContainer, name: str) -> Iterator[None]:
        """Hold a lock file of the container during the block; NotFound if the container is gone."""
        with ExitStack() as stack:
            try:
                with layout.translated(self._layout.root):
                    stack.enter_context(self._brief(container, name))
            except FileNotFoundError as error:
                raise NotFound(f"container not known: {container.name}") from error
            yield

    def _brief(self, container: WorkingContainer, name: str) -> AbstractContextManager[None]:
        what = f"container {container.name}"
        return locks.brief(self.path(container.id, name), waits=self._waits, what=what)

    def load(self, container_id: str) -> WorkingContainer:
        """The record of this full ID; NotFound or Damaged."""
        path = self.path(container_id, "container.json")
        try:
            with layout.translated(self._layout.root):
                data = layout.read_bytes(path)
            if self._read is not None and self._read[0] == data:
                return self._read[1]
            container = _parse(layout.parse_json(data, path))
            self._read = data, container
            return container
        except FileNotFoundError as error:
            raise NotFound(f"container not known: {container_id}") from error
        except (KeyError, TypeError, ValueError, AttributeError, InvalidValue, CorruptContent) as error:
            raise Damaged(path) from error

    def find(self, text: str) -> WorkingContainer | None:
        """The container of this name, ID or unique beginning of an ID; None when there is none."""
        by_name = self._by_name(text)
        if by_name is not None or not text or not all(char in "0123456789abcdef" for char in text):
            return by_name
        found = [name for name in layout.iter_names(self._layout.path("containers")) if name.startswith(text)]
        if len(found) > 1:
            raise NotFound(f"container ID is ambiguous: {text}", hint="give more of its digits")
        with suppress(NotFound):  # half removed
            return self.load(found[0]) if found else None
        return None

    def get(self, text: str) -> WorkingContainer:
        """Same as `find`, but NotFound, with the nearest name, instead of None."""
        container = self.find(text)
        if container is not None:
            return container
        import difflib

        names = [container.name for container in self.iter()]
        near = difflib.get_close_matches(text, names, 1, 0.7)
        raise NotFound(f"container not known: {text}", hint=f"did you mean {near[0]}?" if near else None)

    def _by_name(self, name: str) -> WorkingContainer | None:
        if not name or "\0" in name:
            return None
        try:
            return self.load(_read_name(self._layout.path("names", layout.quote(name))))
        except (FileNotFoundError, NotFound):
            return None

    def iter(self) -> Iterator[WorkingContainer]:
        """Every working container, oldest first; one that vanishes meanwhile is left out."""
        found = []
        for container_id in layout.iter_names(self._layout.path("containers")):
            try:
                found.append(self.load(container_id))
            except NotFound:
                continue
            except Damaged as error:
                self._report(error)
        yield from sorted(found, key=lambda container: (container.created, container.id))

    def rename(self, container: WorkingContainer, name: str) -> WorkingContainer:
        """Rename the container; AlreadyExists if another one has the name."""
        _check_name(name)
        if name == container.name or not self._claim(name, container.id):
            if name == container.name:
                raise AlreadyExists(f"container has that name already: {name}")
            raise self._taken(name)
        return self._renamed(container, name)

    def rename_freely(self, container: WorkingContainer, prefix: str) -> WorkingContainer:
        """Rename the container to `prefix`, with `-1`, `-2` … added if that is taken."""
        return self._renamed(container, self._reserve(container.id, None, prefix))

    def _renamed(self, container: WorkingContainer, name: str) -> WorkingContainer:
        """The container under a name that is reserved for it; its old name is free."""
        try:
            with self.locked(container) as current:
                renamed = self.update(replace(current, name=name))
        except BaseException:
            self._release(name, container.id)
            raise
        self._release(current.name, container.id)
        return renamed

    @contextmanager
    def running(self, container: WorkingContainer) -> Iterator[None]:
        """Note during the block that this process runs something in the container."""
        pid, start = process_identity()
        path = self.path(container.id, f"run-{pid}-{start}-{os.urandom(4).hex()}")
        try:
            with layout.translated(self._layout.root):
                fd = locks.hold(path)
        except FileNotFoundError as error:
            raise NotFound(f"container not known: {container.name}") from error
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)
            os.close(fd)

    def runners(self, container: WorkingContainer) -> tuple[int, ...]:
        """Process IDs of live processes that run something in it, each as its own pid namespace has it."""
        found = []
        for name in layout.iter_names(self.path(container.id)):
            if name.startswith("run-") and locks.is_held(self.path(container.id, name)):
                found.append(int(name.split("-")[1]))
        return tuple(found)

    def delete(self, container: WorkingContainer) -> None:
        """Remove the record, then the name; InUse while something runs in the container.

        Waits for a process that is changing the record, which would write it again otherwise.
        """
        if (pids := self.runners(container)) and os.getpid() not in pids:
            raise InUse(f"container is running, process {pids[0]}: {container.name}", hint="end it first")
        with ExitStack() as stack:
            if container.id not in self._held:
                with suppress(NotFound):
                    container = stack.enter_context(self.locked(container))
            with suppress(FileNotFoundError):
                os.unlink(self.path(container.id, "container.json"))
        self._release(container.name, container.id)
        self._remove_directory(container.id)

    def remove_remains(self, container_id: str) -> None:
        """Remove what is there of a container without a record: its process was killed when it made or removed it."""
        for name in layout.iter_names(self._layout.path("names")):
            path = self._layout.path("names", name)
            with self.names_locked(), suppress(FileNotFoundError):
                if _read_name(path) == container_id:
                    os.unlink(path)
        self._remove_directory(container_id)

    def _remove_directory(self, container_id: str) -> None:
        from builda.fs.paths import discard

        discard(self.path(container_id))


def new_id() -> str:
    """A container ID."""
    return os.urandom(32).hex()


def _read_name(path: str) -> str:
    """The container ID that a name's file holds; "" if it holds something else."""
    with open(path, "rb") as file:
        data = file.read()
    return data.decode() if len(data) == 64 and not data.strip(b"0123456789abcdef") else ""


def _check_name(name: str) -> None:
    if not is_tag(name) or name.startswith("_"):
        raise InvalidValue(f"invalid container name: {name!r}", hint="letters, digits, _ . - and at most 128 of them")


def _dump(container: WorkingContainer) -> bytes:
    values = {name: _to_json(value) for name, value in values_of(container).items()}
    for name in ("used", "cache"):  # which most have not, and versions before do not know
        if not getattr(container, name):
            del values[name]
    return jsontext.dumps({"version": VERSION, **values}).encode()


def _to_json(value: object) -> Any:
    from builda.oci.descriptor import Descriptor

    match value:
        case None | str() | bool():  # most are; the last case asks what a mapping is, which takes longer
            return value
        case ImageConfig():
            return config_to_json(value)
        case Digest():
            return str(value)
        case History() | Descriptor():
            return value.to_json()
        case RunOptions():
            return {
                name: list(item) if isinstance(item, tuple) else item
                for name, item in values_of(value).items()
                if item not in (None, ())
            }
        case FrozenLayer():
            said = {name: _to_json(item) for name, item in values_of(value).items()}
            return {name: item for name, item in said.items() if item or name not in ("key", "partial")}
        case StepCache():
            return {name: _to_json(item) for name, item in values_of(value).items()}
        case tuple():
            return [_to_json(item) for item in value]
        case Mapping():
            return dict(value)
        case _:
            return value


def _parse(value: dict[str, Any]) -> WorkingContainer:
    if value.pop("version") != VERSION:
        raise StoreUnavailable(
            f"working container was made by another version of builda: {value.get('name')}",
            hint="commit and remove it with that version",
        )
    options: dict[str, Any] = {
        name: tuple(item) if isinstance(item, list) else item for name, item in value["options"].items()
    }
    return WorkingContainer(
        **{
            **value,
            "image_id": _digest(value["image_id"]),
            "image_digest": _digest(value["image_digest"]),
            "config": parse_config(jsontext.dumps(value["config"]).encode()),
            "layers": tuple(_layer(item) for item in value["layers"]),
            "history": parse_history(value["history"]),
            "used": tuple((uri, algorithm, digest) for uri, algorithm, digest in value.get("used", ())),
            "options": RunOptions(**options),
            "cache": _step_cache(value.get("cache")),
        }
    )


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)


def _layer(value: dict[str, Any]) -> FrozenLayer:
    from builda.oci.descriptor import Descriptor

    return FrozenLayer(
        snapshot=value["snapshot"],
        history=parse_history([value["history"]])[0],
        diff_id=_digest(value["diff_id"]),
        blob=None if value["blob"] is None else Descriptor.from_json(value["blob"], where="frozen layer"),
        empty=value["empty"],
        key=_digest(value.get("key")),
        partial=bool(value.get("partial", False)),
    )


def _step_cache(value: dict[str, Any] | None) -> StepCache | None:
    if value is None:
        return None
    lists = {name: tuple(value[name]) for name in ("sources", "targets")}
    return StepCache(**{**value, **lists, "key": Digest.parse(value["key"])})
