"""The parts of help pages beside the options: their groups, environment, files, statuses, examples.

Imported only when a page is shown. `manual` makes the manual pages of the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

FEW = 16
"""A page with so many options or fewer has one list of them."""

COMMON: Mapping[str, str] = {
    "build": (
        "--tag --file --build-arg --target --platform --pull --no-cache --output --secret --jobs --quiet --progress"
    ),
    "run": "--env --user --workingdir --volume --mount --network --terminal",
}
"""The options that most users of a verb need, which its page lists first."""
SECTIONS: tuple[tuple[str, str], ...] = (
    (
        "Containerfile and context",
        "--file --target --build-arg --build-arg-file --build-context --ignorefile --contextdir --from "
        "--preprocess --cpp-flag --source-policy-file",
    ),
    (
        "Image",
        "--tag --manifest --format --label --annotation --inherit-labels --inherit-annotations "
        "--unsetenv --unsetlabel --unsetannotation --identity-label "
        "--omit-history --squash --created-annotation --timestamp --source-date-epoch --rewrite-timestamp",
    ),
    (
        "Layers and cache",
        "--layers --no-cache --cache-ttl --cache-from --cache-to --cache-mounts-from --cache-mounts-to "
        "--explain-cache --jobs --rm --force-rm "
        "--compression-format --compression-level --disable-compression --force-compression "
        "--save-stages --stage-labels --layer-label",
    ),
    (
        "Output",
        "--output --iidfile --iidfile-raw --metadata-file --quiet --progress --logfile --logsplit --check --print-plan "
        "--print-script",
    ),
    ("Secrets and rights", "--secret --ssh --allow"),
    (
        "Images and registries",
        "--pull --platform --all-platforms --os --arch --variant --authfile --creds --cert-dir --tls-verify --retry "
        "--retry-delay",
    ),
    (
        "Commands",
        "--stdin --env --isolation --runtime --runtime-flag --no-pivot --volume --mount --device --cap-add --cap-drop "
        "--security-opt --user --workingdir --hostname --tty --terminal --http-proxy --group-add --userns "
        "--userns-uid-map --userns-gid-map --userns-uid-map-user --userns-gid-map-group",
    ),
    (
        "Namespaces and network",
        "--network --pid --ipc --uts --cgroupns --add-host --dns --dns-option --dns-search --no-hosts --no-hostname",
    ),
    (
        "Limits",
        "--memory --memory-swap --shm-size --ulimit --cgroup-parent --cpu-period --cpu-quota --cpu-shares "
        "--cpuset-cpus --cpuset-mems",
    ),
)

ENVIRONMENT: Mapping[str, str] = {
    "BUILDA_ROOT, BUILDA_RUNROOT": "Where the store and its volatile part are.",
    "BUILDA_MODE": "The mode to work in, instead of the first that the place allows.",
    "BUILDA_SESSION": "Set by session for its script: the session that a command is part of.",
    "BUILDA_STORAGE_DRIVER, STORAGE_DRIVER": "overlay, fuse-overlayfs or plain.",
    "BUILDA_STORAGE_OPTS, STORAGE_OPTS": "As --storage-opt.",
    "BUILDA_LOG_LEVEL": "As --log-level.",
    "BUILDA_EVENTS": "As --events: a descriptor for lines of JSON (docs/events.md).",
    "BUILDA_PROGRESS": "As --progress of build.",
    "BUILDA_ON, BUILDA_BUILDER_IMAGE": "As --on and --builder-image of build, for builds in a cluster.",
    "BUILDA_LOCK, BUILDA_LOCKED": "The lock file that from, pull, copy, add, run and bud write, or obey.",
    "BUILDA_FORMAT, BUILDAH_FORMAT": "oci or docker.",
    "BUILDA_HISTORY, BUILDAH_HISTORY": "Record commands in the history where that is not the default.",
    "BUILDA_ISOLATION, BUILDAH_ISOLATION": "native, oci, rootless or chroot.",
    "BUILDA_RUNTIME, BUILDAH_RUNTIME": "The OCI runtime of --isolation oci.",
    "BUILDA_NOPIVOT, BUILDAH_NOPIVOT": "Not empty: do without pivot_root.",
    "BUILDAH_LAYERS": "false: one layer for a whole Containerfile, and no cache.",
    "BUILDAH_CPPFLAGS": "Flags for .in files, before those of --cpp-flag.",
    "BUILDA_AUTHFILE, REGISTRY_AUTH_FILE": "Where credentials are.",
    "BUILDA_REGISTRIES_CONF, CONTAINERS_REGISTRIES_CONF": "The registries.conf to use.",
    "CONTAINERS_CONF, CONTAINERS_CONF_OVERRIDE": "The containers.conf to use, and one whose keys win.",
    "CONTAINERS_POLICY_JSON": "The policy.json to use.",
    "BUILD_REGISTRY_SOURCES": "JSON: which registries may be used at all.",
    "SOURCE_DATE_EPOCH": "The time of what is built, in seconds since 1970.",
    "SSH_AUTH_SOCK": "The agent of --ssh default.",
    "HTTP_PROXY, HTTPS_PROXY, NO_PROXY, …": "For registries, and for commands unless --http-proxy=false.",
    "NO_COLOR": "Not empty: no colours.",
}

STATUSES: Mapping[str, str] = {
    "0": "All went well.",
    "125": "builda failed: a wrong option, a Containerfile that cannot be built, no such image, a full disk.",
    "N": "The command of run, or of a RUN of build, ended with N.",
    "126, 127": "That command could not be executed, or there is none of this name.",
    "128+N": "That command was ended by signal N: 137 is SIGKILL, often for lack of memory.",
    "130": "An interrupt (^C) ended builda.",
}

FILES: Mapping[str, str] = {
    "Containerfile, Dockerfile": "What build builds without -f, also with .in behind it.",
    "FILE.containerignore, FILE.dockerignore": "What the context of the Containerfile FILE leaves out.",
    ".containerignore, .dockerignore": "The same for all of a context, where FILE has none of its own.",
    "registries.conf": "Mirrors, insecure and blocked registries, short names; in /etc/containers or ~/.config.",
    "containers.conf": "How commands are run, layers compressed and registries asked, where nothing else is said.",
    "mounts.conf": "Directories of the host whose copies every command sees.",
    "policy.json": "Which images may be taken from where; in ~/.config/containers or /etc/containers.",
    "auth.json": "Credentials: in $XDG_RUNTIME_DIR/containers; ~/.docker/config.json counts too.",
    "certs.d/HOST/": "Certificates of a registry: in /etc/containers or /etc/docker.",
    "/var/lib/builda, ~/.local/share/builda": "The store of root and of others; it is an OCI image layout.",
}

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "build": (
        "builda bud -t app:1 .",
        "builda bud -t app:1 -f Containerfile.in --cpp-flag -DDEBUG=1 --build-arg VERSION=1.2 .",
        "builda bud --jobs 2 --target tests --secret id=token,src=token.txt .",
        "builda bud --check .",
        "id=$(builda bud -q .)",
    ),
}
PREPROCESSED: Mapping[str, str] = {
    '#include "FILE"': "The lines of FILE: beside this file, else in the context, else in a directory of -I.",
    "#include <FILE>": "The same from the directories of -I alone.",
    "#define NAME TEXT, #undef NAME": "NAME stands for TEXT where it is a whole word outside of quotes; NAME(A,B) "
    "takes arguments.",
    "#if, #ifdef, #ifndef, #elif, #else, #endif": "Leave lines out.",
    "#error TEXT, #warning TEXT": "End the build, or go on, and say so.",
    "# other text": "A comment, as in every Containerfile.",
    "__FILE__, __LINE__": "The place in the file.",
    "--cpp-flag, BUILDAH_CPPFLAGS": "-DNAME=VALUE, -UNAME and -IDIR from outside.",
}

TOPICS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "status": ("Exit status", STATUSES),
    "environment": ("Environment", ENVIRONMENT),
    "files": ("Files", FILES),
    "Containerfile.in": ("Preprocessed files (.in)", PREPROCESSED),
}
"""What `builda help` tells of besides verbs."""
SWITCHES = (
    "A switch takes a value only after =, as in --quiet=false; [=false] marks those that are on without being named."
)
_HYPHEN = "\ue000"
"""Stands for a hyphen while lines are broken: a name that is broken there can be neither searched nor copied."""


class Formatter(click.HelpFormatter):
    """Breaks lines at blanks only."""

    def write(self, string: str) -> None:
        """Take text that is broken into lines."""
        super().write(string.replace(_HYPHEN, "-"))

    def write_text(self, text: str) -> None:
        """Break a paragraph into lines."""
        super().write_text(unbroken(text))


def unbroken(text: str) -> str:
    """The text as a Formatter takes it that is not to break it at hyphens."""
    return text.replace("-", _HYPHEN)


def text_of(command: click.Command, ctx: click.Context) -> str:
    """The help page of a command."""
    formatter = Formatter(width=ctx.terminal_width, max_width=ctx.max_content_width)
    command.format_help(ctx, formatter)
    return formatter.getvalue().rstrip("\n")


PAGES = frozenset({"build", "run"})
"""Verbs whose manual page has the topics too."""


def topic(name: str, ctx: click.Context) -> str:
    """The text of `builda help NAME` for a topic."""
    title, rows = TOPICS[name]
    formatter = Formatter(width=ctx.terminal_width, max_width=ctx.max_content_width)
    with formatter.section(title):
        formatter.write_dl([(name, unbroken(text)) for name, text in rows.items()])
    return formatter.getvalue().rstrip("\n")


def examples(command: click.Command) -> tuple[str, ...]:
    """Command lines that use a verb."""
    return EXAMPLES.get(command.name or "", (command.epilog,) if command.epilog else ())


def sections(verb: str, params: Iterable[click.Parameter]) -> list[tuple[str, list[click.Option]]]:
    """The options of a page under their headings, those that most users need first."""
    visible = [param for param in params if isinstance(param, click.Option) and not param.hidden]
    if len(visible) <= FEW:
        return [("Options", visible)]
    by_name = {name: option for option in visible for name in option.opts}
    placed = {name for _, names in SECTIONS for name in names.split()} | set(COMMON.get(verb, "").split())
    others = " ".join(name for option in visible for name in option.opts[:1] if placed.isdisjoint(option.opts))
    own, rest = ("", others) if verb in COMMON else (others, "")
    taken: set[str | None] = set()
    found = []
    for title, names in (
        ("Options", own),
        ("Common options", COMMON.get(verb, "")),
        *SECTIONS,
        ("Other options", rest),
    ):
        fresh = [by_name[name] for name in names.split() if name in by_name and by_name[name].name not in taken]
        taken |= {option.name for option in fresh}
        if fresh:
            found.append((title, list(dict.fromkeys(fresh))))
    return found
