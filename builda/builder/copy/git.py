"""Git repositories as sources: the forms of their URLs, and fetching one commit of them by the git program.

The forms are those of ADD and of build contexts in the Dockerfile reference: `URL#ref:subdirectory`, and
`URL?ref=…&subdir=…`.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import partial
from types import MappingProxyType

from builda.errors import CorruptContent, InvalidValue, NotFound, Unsupported
from builda.fs import paths
from builda.linux import syscalls
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REPOSITORY = r"(git://|ssh://|git@[^/:]+:|https?://[^#?]+\.git/?([#?]|$))"
_QUERY = frozenset({"ref", "branch", "tag", "commit", "checksum", "subdir", "keep-git-dir", "submodules"})
_COMMIT = r"[0-9a-f]{7,64}"


class Repository(NamedTuple):
    """One commit of a repository. `ref` None is its default branch; `checksum` is how the commit's digest begins."""

    url: str
    ref: str | None = None
    subdirectory: str = "."
    checksum: str | None = None
    keep_git_dir: bool = False
    submodules: bool = True


class Credentials(NamedTuple):
    """What git may show to servers on behalf of an ADD: what the command line gave, and nothing of the caller's own.

    A Containerfile may be untrusted, and it names the server, so a token is used only for the host in its name.
    """

    agent: str | None = None  # the socket of --ssh default
    secrets: Mapping[str, bytes] = MappingProxyType({})  # among them GIT_AUTH_TOKEN.HOST

    def environment(self, url: str) -> dict[str, str]:
        """git's environment: no keys, helpers, configuration or .netrc of the caller."""
        import shlex

        identity = f"-o IdentityAgent={shlex.quote(self.agent or 'none')} -o IdentityFile=none"
        kept = {name: value for name, value in _environment().items() if name not in _CALLERS_OWN}
        return {
            **kept,
            "GIT_SSH_COMMAND": f"ssh -F none -o BatchMode=yes {identity}",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "HOME": "/nonexistent",
            **self._header(url),
        }

    def _header(self, url: str) -> dict[str, str]:
        found = re.match(r"(https?)://(?:[^/@]*@)?([^/]+)", url)
        token = None if found is None else self.secrets.get(f"GIT_AUTH_TOKEN.{found[2].partition(':')[0]}")
        if found is None or token is None:
            return {}
        from base64 import b64encode

        basic = b64encode(b"x-access-token:" + token.strip()).decode()
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{found[1]}://{found[2]}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
        }


def parse_repository(text: str) -> Repository | None:
    """The repository that `text` names; None when it names something else. InvalidValue for what git would not take."""
    if not text.startswith(("git", "ssh", "http")) or re.match(_REPOSITORY, text) is None:
        return None
    body, _, fragment = text.partition("#")
    url, _, query = body.partition("?")
    ref, _, subdirectory = fragment.partition(":")
    found = Repository(url, ref or None, subdirectory or ".")
    if query:
        found = _with_query(found, text, query)
    if url.startswith("-") or (found.ref or "").startswith("-"):
        raise InvalidValue(f"not a git reference: {found.ref or url}")
    return found


def _with_query(base: Repository, text: str, query: str) -> Repository:
    from urllib.parse import parse_qsl

    values = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := values.keys() - _QUERY:
        raise InvalidValue(f"unknown parameter of a git URL: {min(unknown)}", hint=f"known: {' '.join(sorted(_QUERY))}")
    refs = [prefix + values[key] for key, prefix in _REFS.items() if values.get(key)]
    if len(refs) + (base.ref is not None) > 1:
        raise InvalidValue(f"git URL names more than one reference: {text}")
    checksum = values.get("checksum") or values.get("commit")
    if checksum is not None and re.fullmatch(_COMMIT, checksum) is None:
        raise InvalidValue(f"not the digest of a commit: {checksum}")
    subdirectory = values.get("subdir") or base.subdirectory
    if values.get("subdir") and base.subdirectory != ".":
        raise InvalidValue(f"git URL names more than one subdirectory: {text}")
    ref = refs[0] if refs else base.ref
    return Repository(
        base.url,
        ref if ref is not None or checksum is None else checksum,
        subdirectory,
        checksum,
        _flag(values, "keep-git-dir", default=False),
        _flag(values, "submodules", default=True),
    )


_REFS = {"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}


def _flag(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = values.get(name)
    if value is None:
        return default
    if value.lower() in ("", "1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise InvalidValue(f"{name} of a git URL must be true or false: {value}")


def fetch_repository(source: Repository, directory: str, credentials: Credentials | None = None) -> str:
    """Check the commit out at `directory`, which is empty, without its .git unless asked for; the commit's digest.

    Without `credentials` git finds the caller's by itself.
    NotFound with git's words when it cannot be had, CorruptContent when it is not what the checksum says, Unsupported
    where git is not installed.
    """
    import shutil

    if shutil.which("git") is None:
        raise Unsupported(f"git is not installed, and it is needed for: {source.url}", hint="install git")
    git = partial(_git, source, directory, credentials)
    git("init", "--quiet", ".")
    head = _check_out(source, git)
    if source.checksum is not None and not head.startswith(source.checksum):
        raise CorruptContent(f"commit does not match the checksum, {source.url} has: {head}")
    if source.submodules:
        git("submodule", "update", "--init", "--recursive", "--depth=1", "--quiet")
    if not source.keep_git_dir:
        paths.remove_tree(syscalls.AT_FDCWD, os.path.join(directory, ".git"))
    return head


def commit_of(source: Repository, credentials: Credentials | None = None) -> str:
    """The digest of the commit that the repository's reference means now; nothing is fetched.

    NotFound for a reference that the repository does not have, or with git's words when it cannot be asked.
    """
    import shutil

    if shutil.which("git") is None:
        raise Unsupported(f"git is not installed, and it is needed for: {source.url}", hint="install git")
    ref = source.ref or "HEAD"
    names = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", f"{ref}^{{}}", ref]
    said = _git(source, "/", credentials, "ls-remote", "--", source.url, *names)
    lines = (line.split("\t", 1) for line in said.splitlines() if "\t" in line)
    found = {name: digest for digest, name in lines}
    for name in names:
        if name in found:
            return found[name]
    hint = "write the whole digest of a commit" if re.fullmatch(_COMMIT, ref) else None
    raise NotFound(f"no such reference in the repository {source.url}: {ref}", hint=hint)


def pinned(text: str, commit: str) -> str:
    """The text of a repository with `commit` in the place of its reference."""
    from urllib.parse import parse_qsl, urlencode

    body, _, fragment = text.partition("#")
    url, _, query = body.partition("?")
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] not in (*_REFS, "commit", "checksum")]
    _, colon, subdirectory = fragment.partition(":")
    return f"{url}{'?' if kept else ''}{urlencode(kept)}#{commit}{colon}{subdirectory}"


def _check_out(source: Repository, git: Callable[..., str]) -> str:
    try:
        git("fetch", "--quiet", "--depth=1", "--", source.url, source.ref or "HEAD")
        found = "FETCH_HEAD"
    except NotFound:  # servers may refuse a commit by its digest, or a shallow fetch
        everything = ("+HEAD:refs/remotes/origin/HEAD", "+refs/heads/*:refs/remotes/origin/*")
        git("fetch", "--quiet", "--tags", "--", source.url, *everything)
        found = _found(source, git)
    git("checkout", "--quiet", "--detach", found, "--")
    return git("rev-parse", "HEAD").strip()


def _found(source: Repository, git: Callable[..., str]) -> str:
    """The commit of the reference; tags take precedence over branches, as in git."""
    ref = source.ref or "HEAD"
    short = ref.removeprefix("refs/heads/")
    for name in (ref, f"refs/tags/{ref}", f"refs/remotes/origin/{short}"):
        with suppress(NotFound):
            return git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}").strip()
    raise NotFound(f"no such reference in the repository {source.url}: {ref}")


def _git(source: Repository, directory: str, credentials: Credentials | None, *arguments: str) -> str:
    import subprocess

    environment = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes", **_environment()}
    options: tuple[str, ...] = ("-c", "advice.detachedHead=false")
    if credentials is not None:
        environment, options = credentials.environment(source.url), (*options, "-c", "credential.helper=")
    done = subprocess.run(
        ["git", *options, "-C", directory, *arguments],
        env={**environment, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        what = f"git {arguments[0]} failed" if arguments[0] != "fetch" else f"cannot fetch {source.ref or 'HEAD'}"
        hint = None
        if "could not read" in done.stderr or "Permission denied" in done.stderr:
            hint = _OWN if credentials is None else _GIVEN
        raise NotFound(f"{what} ({said[-1] if said else done.returncode}): {source.url}", hint=hint)
    return done.stdout


def _environment() -> dict[str, str]:
    """The caller's environment without the variables that would lead git to another repository."""
    return {name: value for name, value in os.environ.items() if name not in _MISLEADING}


_OWN = "private repositories need credentials that git finds by itself"
_GIVEN = "ADD uses no credentials of the caller: give --ssh default, or --secret id=GIT_AUTH_TOKEN.HOST,src=FILE"
_CALLERS_OWN = frozenset(
    {"SSH_AUTH_SOCK", "SSH_ASKPASS", "GIT_ASKPASS", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "XDG_CONFIG_HOME"}
)
_MISLEADING = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"})
