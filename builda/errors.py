"""What can go wrong, named for what the caller can do about it.

    BuildaError                 exit status 125
    ├── InvalidValue            an option, argument or setting cannot mean anything
    │   ├── InvalidReference    … an image name
    │   └── TreeNeeded          … where files are only known; a tree would do
    ├── Unsupported             understood, and refused with a reason
    ├── PolicyRejected          policy.json does not allow the image
    ├── NotFound                no such image, container, blob, file
    ├── AlreadyExists           the name is taken
    ├── InUse                   something alive depends on it
    ├── CorruptContent          bytes are not what their digest, size or format promises
    ├── StoreUnavailable        the store cannot be read or written (read-only, full, made by another mode)
    ├── ContainerfileError      a Containerfile, with the place in it
    ├── RegistryError           a registry answered no, or not at all
    ├── IsolationUnavailable    the kernel or pod does not allow what a run needs
    ├── StepFailed              a step of a build failed; carries the cause and its place
    └── CommandFailed           the user's command ended with a status other than 0

`cli.main` is the only place that catches BuildaError; everything else lets it pass.
"""

from __future__ import annotations


class BuildaError(Exception):
    """A failure with a message for the user, and perhaps a hint that says the way out."""

    exit_status = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def of_system(error: OSError) -> BuildaError:
    """An OSError as one of builda's errors."""
    import os

    words = (error.strerror or str(error)).lower()
    named = error.filename if error.filename is not None else error.filename2
    return BuildaError(f"{words}: {os.fsdecode(named)}" if isinstance(named, str | bytes) else words)


class InvalidValue(BuildaError):
    """An option, argument, file or setting that cannot mean anything."""


class InvalidReference(InvalidValue):
    """An image name that the reference grammar does not allow."""


class TreeNeeded(InvalidValue):
    """The operation needs a tree, and there is only a list of files."""


class Unsupported(BuildaError):
    """Understood, and refused with a reason."""


class PolicyRejected(BuildaError):
    """The policy for images (policy.json) does not allow this one."""


class NotFound(BuildaError):
    """No such image, container, blob, tag or file."""


class AlreadyExists(BuildaError):
    """The name is taken."""


class InUse(BuildaError):
    """Something alive depends on the object."""


class CorruptContent(BuildaError):
    """Bytes that are not what their digest, size or format promises."""


class StoreUnavailable(BuildaError):
    """The store cannot be read or written: read-only, full, or made by another mode."""


class ContainerfileError(BuildaError):
    """A Containerfile that cannot be built, with the file and line to edit."""

    def __init__(
        self, message: str, *, file: str, line: int, excerpt: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.excerpt = excerpt


class RegistryError(BuildaError):
    """A registry refused (HTTP `status`, registry error `code`) or could not be reached (`status` is None)."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code


class EngineError(BuildaError):
    """Another engine or tool that was asked (docker-daemon:, containers-storage:[]) refused or is not there."""


class IsolationUnavailable(BuildaError):
    """The kernel or the pod does not allow what a run needs."""


class NetworkUnavailable(IsolationUnavailable):
    """A private network cannot be made for a command; the caller's network always works."""


class StepFailed(BuildaError):
    """A step of a build failed: where it was written, and the last lines of its output unless they were printed.

    The exit status is its cause's.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: BuildaError,
        file: str | None = None,
        line: int = 0,
        output: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint if hint is not None else cause.hint)
        self.cause = cause
        self.file = file
        self.line = line
        self.excerpt: str | None = None
        self.output = output
        self.exit_status = cause.exit_status


class CommandFailed(BuildaError):
    """The user's command ended with `status` (128 + N when signal N ended it); `what` says how, without naming it."""

    def __init__(
        self, message: str, *, status: int, hint: str | None = None, command: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(message if command is None else f"{message}: {_joined(command)}", hint=hint)
        self.what = message
        self.names_command = command is not None
        self.status = status
        self.exit_status = status


def _joined(command: tuple[str, ...]) -> str:
    import shlex

    text = shlex.join(command)
    return text if len(text) <= 200 else f"{text[:200]}…"
