"""What help pages say beside the options: which of these belong together, environment, files, statuses, examples.

Read when a page is shown, and only then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

FEW = 16
"""A page with so many options or fewer has one list of them."""

SECTIONS: tuple[tuple[str, str], ...] = (
    (
        "Containerfile and context",
        "--file --target --build-arg --build-arg-file --build-context --ignorefile --contextdir --from --env "
        "--preprocess --cpp-flag",
    ),
    (
        "Image",
        "--tag --manifest --format --label --annotation --unsetenv --unsetlabel --unsetannotation --identity-label "
        "--omit-history --squash --created-annotation --timestamp --source-date-epoch --rewrite-timestamp",
    ),
    (
        "Layers and cache",
        "--layers --no-cache --cache-ttl --cache-from --cache-to --explain-cache --jobs --rm --force-rm "
        "--compression-format --compression-level --disable-compression --force-compression --layer-label",
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
        "--isolation --runtime --runtime-flag --no-pivot --volume --mount --device --cap-add --cap-drop --security-opt "
        "--user --workingdir --hostname --tty --terminal --http-proxy --group-add --userns "
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
    "BUILDA_STORAGE_DRIVER, STORAGE_DRIVER": "overlay, fuse-overlayfs or plain.",
    "BUILDA_STORAGE_OPTS, STORAGE_OPTS": "As --storage-opt.",
    "BUILDA_LOG_LEVEL": "As --log-level.",
    "BUILDA_EVENTS": "As --events: a descriptor for lines of JSON (docs/events.md).",
    "BUILDA_PROGRESS": "As --progress of build.",
    "BUILDA_FORMAT, BUILDAH_FORMAT": "oci or docker.",
    "BUILDA_HISTORY, BUILDAH_HISTORY": "Record commands in the history where that is not the default.",
    "BUILDA_ISOLATION, BUILDAH_ISOLATION": "native, oci, rootless or chroot.",
    "BUILDA_RUNTIME, BUILDAH_RUNTIME": "The OCI runtime of --isolation oci.",
    "BUILDA_NOPIVOT, BUILDAH_NOPIVOT": "Not empty: do without pivot_root.",
    "BUILDAH_LAYERS": "false: one layer for a whole Containerfile, and no cache.",
    "BUILDAH_CPPFLAGS": "Flags for .in files, before those of --cpp-flag.",
    "BUILDA_AUTHFILE, REGISTRY_AUTH_FILE": "Where credentials are.",
    "BUILDA_REGISTRIES_CONF, CONTAINERS_REGISTRIES_CONF": "The registries.conf to use.",
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
PAGES = frozenset({"build", "run"})
"""Verbs whose page tells of environment and files as that of builda itself does."""


def sections(params: Iterable[click.Parameter]) -> list[tuple[str, list[click.Parameter]]]:
    """The options of a page under their headings; those that belong nowhere come first."""
    visible = [param for param in params if isinstance(param, click.Option) and not param.hidden]
    if len(visible) <= FEW:
        return [("Options", list(visible))]
    titles = {name: title for title, names in SECTIONS for name in names.split()}
    found: dict[str, list[click.Parameter]] = {title: [] for title in ("Options", *(title for title, _ in SECTIONS))}
    for param in visible:
        title = next((titles[name] for name in param.opts if name in titles), "Options")
        found[title].append(param)
    return [(title, listed) for title, listed in found.items() if listed]
