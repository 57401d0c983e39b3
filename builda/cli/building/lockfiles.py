"""builda.lock on command lines: which lock file is meant, and whether it is obeyed or written."""

from __future__ import annotations

from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builda.builder.imageoptions import Inputs, RegistryAccess
    from builda.builder.locking import Locked, Locking, Pins
    from builda.cli.core.verbsession import Session
    from builda.oci.descriptor import Platform
    from builda.plan import Copy

OBEYED, WRITTEN = "BUILDA_LOCKED", "BUILDA_LOCK"


class LockFile(NamedTuple):
    """A lock file that a command line names: to be obeyed, or `written`. `path` is "" for the default one."""

    path: str
    written: bool = False

    def beside(self, containerfile: str, context: Path | str | None) -> LockFile:
        """The same with a path: where none was given, beside the Containerfile.

        In the context for a Containerfile on standard input, in the current directory for a fetched context.
        """
        import os

        from builda.cli.building.contexts import STDIN
        from builda.lockfile import FILE

        directory = str(context or "") if containerfile == STDIN else os.path.dirname(containerfile)
        return self._replace(path=self.path or os.path.join(directory, FILE))

    def pins(self, session: Session, access: RegistryAccess) -> Locked | Locking:
        """The pins of the lock file, or a set to write; NotFound, InvalidValue or Unsupported if it is unreadable."""
        import os

        from builda.builder.locking import Locked, Locking
        from builda.cli.core.output import check_files
        from builda.lockfile import read

        ctx = session.builder.context
        if not self.written:
            return Locked(ctx, read(self.path), self.path, access)
        if os.path.lexists(self.path):
            read(self.path)
        check_files(self.path)
        return Locking(ctx, access)

    def save(self, session: Session, pins: Locked | Locking) -> None:
        """If the file is to be written, write it, and say which entries have changed."""
        from builda.builder.locking import Locking
        from builda.events import Warned
        from builda.lockfile import save

        if not isinstance(pins, Locking):
            return
        for name, old, new in pins.lock.changes(save(self.path, pins.lock)):
            session.emit(Warned(message=f"changed since {self.path} was written: {name}: {old} → {new}"))


def of_containerfile(pins: Locked | Locking, inputs: Inputs) -> Pins:
    """The pins for what a Containerfile names: git shows servers only what the command line gave for them."""
    from builda.builder.copy.git import Credentials
    from builda.builder.locking import Locked

    return pins if isinstance(pins, Locked) else pins.showing(Credentials(inputs.ssh.get("default"), inputs.secrets))


def named(environ: Mapping[str, str], lock: str | None, locked: str | None) -> LockFile | None:
    """The lock file that --lock, --locked or their variables name; InvalidValue for two of them."""
    if lock is not None and locked is not None:
        raise InvalidValue("--lock cannot be used with --locked")
    if lock is not None or locked is not None:
        return LockFile(lock or locked or "", lock is not None)
    return of_script(environ)


def of_script(environ: Mapping[str, str]) -> LockFile | None:
    """The lock file that BUILDA_LOCKED or BUILDA_LOCK names for every command of a script."""
    obeyed, written = environ.get(OBEYED), environ.get(WRITTEN)
    if not (obeyed or written):
        return None
    if obeyed and written:
        hint = "the first obeys a lock file, the second writes one"
        raise InvalidValue(f"{OBEYED} and {WRITTEN} are both set", hint=hint)
    return LockFile(obeyed or written or "", bool(written))


def image(session: Session, name: str, platform: Platform | None, access: RegistryAccess) -> str:
    """The image that a verb is to take for `name`, by the lock file of the script."""
    lock = of_script(session.environ)
    if lock is None or name == "scratch" or name.startswith("container:"):
        return name
    pins = lock.pins(session, access)
    found = pins.image(name, platform)
    lock.save(session, pins)
    return found


def copied(session: Session, step: Copy, access: RegistryAccess) -> Copy:
    """The copy of a verb with its image and its URL as the lock file of the script says."""
    from builda.plan import FromImage
    from builda.values import replace

    lock = of_script(session.environ)
    if lock is None:
        return step
    pins = lock.pins(session, access)
    if isinstance(step.source, FromImage):
        step = replace(step, source=FromImage(pins.image(step.source.name, None)))
    elif step.checksum is None:
        step = _checked(step, pins)
    lock.save(session, pins)
    return step


def _checked(step: Copy, pins: Pins) -> Copy:
    from builda.values import replace

    found = [pins.remote(source) for source in step.sources]
    checksums = [checksum for _, checksum in found if checksum is not None]
    if checksums and len(found) + len(step.inline) > 1:
        raise InvalidValue("a URL among several sources cannot be locked", hint="add each URL by itself")
    return replace(step, sources=tuple(source for source, _ in found), checksum=checksums[0] if checksums else None)
