"""What a copy's sources name: wildcards expanded, links followed inside their root, ignore rules obeyed.

Everything is decided here, before anything is written: a source that names nothing is an error that says why.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from builda.errors import NotFound
from builda.fs import paths
from builda.fs.glob import glob
from builda.fs.ignore import Matcher
from builda.fs.patterns import has_wildcards
from builda.values import NamedTuple

NOTHING = Matcher(())
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Source(NamedTuple):
    """A path, perhaps with wildcards, inside the directory `root`; `ignore` are the rules of its context's ignore file.

    `name` is what a file is called in a destination directory when that is not its own name.
    """

    root: int
    path: str
    name: str | None = None
    ignore: Matcher = NOTHING
    within: str = ""  # what the root is, for errors: "the context"

    @property
    def missing(self) -> str:
        """The beginning of an error about something that is not there."""
        return f"no such file or directory in {self.within}" if self.within else "no such file or directory"


class Top(NamedTuple):
    """One file or directory that a source names. `path` is relative to its root, "" for the root itself."""

    source: Source
    path: str
    info: os.stat_result
    kept: str  # with --parents: the path to keep below the destination; otherwise ""

    @property
    def name(self) -> str:
        """The name of its copy in a destination directory."""
        return self.source.name or posixpath.basename(self.path)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)


class Filter:
    """What the rules of an ignore file and of --exclude leave out of a directory.

    `prefix` is the directory's path in its root, with a slash at its end. Each directory that is left out is searched
    once for what is taken back, with a stack of its own, so that the time is linear and trees may be of any depth.
    """

    def __init__(self, ignore: Matcher, excludes: Matcher, prefix: str = "") -> None:
        self._ignore = ignore
        self._excludes = excludes
        self._prefix = prefix
        self._needed: dict[str, bool] = {}

    def leaves_out(self, parent: int, relative: str, name: str, info: os.stat_result) -> bool:
        """Whether `name` in the directory `parent`, at the path `relative`, is left out with all below it."""
        if not self._excluded(relative):
            return False
        if not stat.S_ISDIR(info.st_mode) or not self._reaches_into(relative):
            return True
        if relative not in self._needed:
            self._search(parent, relative, name)
        return not self._needed[relative]

    def _excluded(self, relative: str) -> bool:
        whole = self._prefix + relative
        return self._excludes.excludes(whole, relative) or self._ignore.excludes(whole)

    def _reaches_into(self, relative: str) -> bool:
        whole = self._prefix + relative
        return self._ignore.reaches_into(whole) or self._excludes.reaches_into(whole, relative)

    def _search(self, parent: int, relative: str, name: str) -> None:
        """Note whether anything below a directory that is left out is taken back, so that the directory is needed."""
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            with paths.Descent(fd) as at:
                stack = [(relative, _entries(at.fd))]
                while stack:
                    path, entries = stack[-1]
                    if self._finds(path, entries):
                        self._needed.update((above, True) for above, _ in stack)
                        return
                    if entries:
                        inner = entries.pop()[0]
                        at.enter(inner)
                        stack.append((f"{path}/{inner}", _entries(at.fd)))
                        continue
                    self._needed[path] = False
                    stack.pop()
                    if stack:
                        at.leave()
        finally:
            os.close(fd)

    def _finds(self, path: str, entries: list[tuple[str, bool]]) -> bool:
        """Whether one of the entries is taken back; else the last one that is left has to be searched."""
        while entries:
            name, is_directory = entries[-1]
            inner = f"{path}/{name}"
            if self._needed.get(inner) or not self._excluded(inner):
                return True
            if is_directory and inner not in self._needed and self._reaches_into(inner):
                return False
            entries.pop()
        return False


def _entries(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


class Rules(NamedTuple):
    """The options of resolving sources."""

    parents: bool = False
    follow_symlinks: bool = True
    wildcards: bool = True
    allow_empty_wildcard: bool = False


def resolve(sources: tuple[Source, ...], rules: Rules) -> tuple[Top, ...]:
    """What the sources name, in their order, and of each wildcard sorted.

    NotFound, with a hint, when a source names nothing, or nothing that its ignore file lets through. Of several sources
    one that is a pattern may match nothing; if `rules` allow it, all may.
    """
    found = tuple(top for source in sources for top in _resolve_one(source, rules))
    if sources and not found and not rules.allow_empty_wildcard:
        raise no_match(sources[0])
    return found


def clean(path: str) -> str:
    """The path inside its root: no leading slash, no dots; `..` stops at the root. "" is the root."""
    return posixpath.normpath("/" + path).lstrip("/")


def _resolve_one(source: Source, rules: Rules) -> list[Top]:
    pivot, path = _pivot(source.path) if rules.parents else ("", clean(source.path))
    if rules.wildcards and has_wildcards(path):
        matches = glob(source.root, path)
        found = [match for match in matches if _is_let_through(source, match)]
        if matches and not found and not rules.allow_empty_wildcard:
            raise no_match(source)
    else:
        found = [path]
    return [_top(source, match, pivot, rules) for match in found]


def _pivot(path: str) -> tuple[str, str]:
    """The part of a path before `/./`, which --parents does not keep, and the whole path."""
    head, dot, tail = path.partition("/./")
    if not dot:
        return "", clean(path)
    return clean(head), clean(f"{head}/{tail}")


def _is_let_through(source: Source, path: str) -> bool:
    """Whether the ignore file shows the path: a directory that it leaves out shows with what it takes back in it."""
    if not source.ignore.excludes(path):
        return True
    with paths.parent_of(source.root, path) as (parent, name):
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        return not Filter(source.ignore, NOTHING).leaves_out(parent, path, os.fsdecode(name), info)


def _stat(source: Source, path: str, *, follow: bool) -> os.stat_result | None:
    """The status of a path; None if it is missing. NotFound for a link of /proc that names an open file."""
    try:
        return (paths.stat_in_root if follow else paths.lstat_in_root)(source.root, path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        hint = "links of /proc, such as /dev/stdin, name open files of one process; write the content to a file first"
        raise NotFound(f"{source.missing}, but links that lead to no place: {source.path}", hint=hint) from error


def _top(source: Source, path: str, pivot: str, rules: Rules) -> Top:
    info = _stat(source, path, follow=False)
    if info is not None and stat.S_ISLNK(info.st_mode) and rules.follow_symlinks:
        info = _stat(source, path, follow=True)
        if info is None:
            hint = _about_link(source, path)
            raise NotFound(f"{source.missing}, but a link that leads nowhere: {source.path}", hint=hint)
    if info is None:
        raise NotFound(f"{source.missing}: {source.path}", hint=_near_miss(source, path) or _inside(source, path))
    if path and not _is_let_through(source, path):
        raise _hidden(source, path)
    return Top(source, path, info, _kept(path, pivot) if rules.parents else "")


def _kept(path: str, pivot: str) -> str:
    return clean(path.removeprefix(pivot)) if pivot else path


def _hidden(source: Source, path: str) -> NotFound:
    what = "it" if path == clean(source.path) else path
    return NotFound(
        f"no such file or directory in {source.within or 'the context'}: {source.path}",
        hint=f"{what} exists, but {source.ignore.blame(path)}",
    )


def names_something(source: Source) -> bool:
    """Whether there is a file of this name or pattern, if only a socket, which is not copied."""
    path = clean(source.path)
    if not has_wildcards(path):
        return paths.lstat_in_root(source.root, path) is not None
    return any(_is_let_through(source, match) for match in glob(source.root, path))


def no_match(source: Source) -> NotFound:
    """Why a pattern names nothing."""
    path = clean(source.path)
    matches = glob(source.root, path)
    if matches and not _is_let_through(source, matches[0]):
        return _hidden(source, matches[0])
    head = path.rpartition("/")[0]
    if not has_wildcards(head) and paths.stat_in_root(source.root, head) is None:
        return NotFound(f"no file matches: {source.path}", hint=_near_miss(source, head))
    literal = path.replace("\\", "")
    if paths.lstat_in_root(source.root, literal) is not None:
        return NotFound(f"no file matches: {source.path}", hint=r"brackets in a name are written [[] or \[")
    return NotFound(f"no file matches: {source.path}")


def _near_miss(source: Source, path: str) -> str | None:
    """A name that may have been meant, in the deepest directory of `path` that exists."""
    from difflib import get_close_matches

    done = ""
    for part in path.split("/"):
        step = posixpath.join(done, part)
        if paths.stat_in_root(source.root, step) is not None:
            done = step
            continue
        if paths.lstat_in_root(source.root, step) is not None:
            return _about_link(source, step)
        names = _names(source.root, done)
        close = get_close_matches(part, names, 1) or [name for name in names if name.lower() == part.lower()]
        top = "/" if not source.within and source.path.startswith("/") else ""
        return f"did you mean {top}{posixpath.join(done, close[0])}?" if close else None
    return None


def _about_link(source: Source, path: str) -> str:
    with paths.parent_of(source.root, path) as (parent, name):
        target = os.fsdecode(os.readlink(name, dir_fd=parent))
    if not source.within and source.path.startswith("/"):
        return f"/{path} is a link to {target}"
    return f"{path} is a link to {target}, and links are followed inside {source.within or 'the directory'} only"


def _inside(source: Source, path: str) -> str | None:
    """A hint for an absolute or climbing path: it was looked for inside the context."""
    if path == posixpath.normpath(source.path) or not source.within:
        return None
    if source.within.startswith(("the context", "the build context")):
        return f"sources are paths inside {source.within}: it was looked for as {path}"
    return None


def _names(root: int, path: str) -> list[str]:
    try:
        fd = paths.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
