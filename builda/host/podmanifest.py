"""Manifests of pods in which builda builds, one for each mode. What they are worth: docs/kubernetes.md."""

from __future__ import annotations

from builda.errors import InvalidValue
from builda.host.probe import Mode
from builda.values import NamedTuple


class _Pod(NamedTuple):
    about: tuple[str, ...]
    host_users: bool
    context: tuple[str, ...]
    store: str = "/var/lib/builda"


_PODS: dict[Mode, _Pod] = {
    Mode.DIRECT: _Pod(
        (
            "RUN is fully isolated, and the pod keeps its seccomp profile: to the node this root is a plain user.",
            "Needs Kubernetes 1.33 and Linux 6.3 or newer. AppArmor is Unconfined: its default profile forbids mounts.",
        ),
        False,
        ("capabilities:", "  add: [SYS_ADMIN]", "appArmorProfile:", "  type: Unconfined"),
    ),
    Mode.USERNS: _Pod(
        ("The same without a capability, by a nested user namespace, for clusters that do not allow SYS_ADMIN.",),
        False,
        (
            "procMount: Unmasked",
            "seccompProfile:",
            "  type: Unconfined",
            "appArmorProfile:",
            "  type: Unconfined",
        ),
    ),
    Mode.SUBID: _Pod(
        (
            "Not even root in its own pod. The image has a range of ids for user 1000 in /etc/subuid and /etc/subgid,",
            "and newuidmap and newgidmap with file capabilities.",
        ),
        True,
        (
            "runAsUser: 1000",
            "runAsGroup: 1000",
            "allowPrivilegeEscalation: true # newuidmap and newgidmap get their capabilities from their files",
            "capabilities:",
            "  drop: [ALL]",
            "  add: [SETUID, SETGID]",
            "seccompProfile:",
            "  type: Unconfined",
            "appArmorProfile:",
            "  type: Unconfined",
        ),
        "/home/build/.local/share/builda",
    ),
    Mode.CHROOT: _Pod(
        (
            "Root with the default capabilities, as most clusters let it be.",
            "A RUN can read the pod's files, see its processes and use its network; it writes to its own tree only.",
        ),
        True,
        ("seccompProfile:", "  type: RuntimeDefault"),
    ),
    Mode.TRACED: _Pod(
        (
            "PodSecurity restricted, which every cluster allows.",
            "A RUN reads and writes in its own tree only; it sees the pod's processes and uses its network.",
        ),
        True,
        (
            "runAsUser: 1000",
            "runAsGroup: 1000",
            "runAsNonRoot: true",
            "allowPrivilegeEscalation: false",
            "capabilities:",
            "  drop: [ALL]",
            "seccompProfile:",
            "  type: RuntimeDefault",
        ),
        "/home/build/.local/share/builda",
    ),
}

BEST_FIRST = tuple(_PODS)

IMAGE = "registry.example.org/builda:0.1.0"


def manifest(mode: Mode | None) -> str:
    """The manifest, in YAML, of a pod in which builda works in `mode` (None: the best one).

    InvalidValue if no pod is needed for the mode.
    """
    mode = mode or BEST_FIRST[0]
    pod = _PODS.get(mode)
    if pod is None:
        raise InvalidValue(f"no pod is made for mode {mode}", hint=f"there are {', '.join(BEST_FIRST)}")
    host_users = () if pod.host_users else ("hostUsers: false",)
    lines = (
        *(f"# {line}" for line in pod.about),
        "apiVersion: v1",
        "kind: Pod",
        "metadata:",
        f"  name: builda-{mode}",
        "spec:",
        "  restartPolicy: Never",
        "  automountServiceAccountToken: false",
        *(f"  {line}" for line in host_users),
        "  containers:",
        "  - name: build",
        f"    image: {IMAGE}",
        "    command: [bash, -euc]",
        "    args:",
        "    - |",
        "      builda bud -t registry.example.org/app:1 https://git.example.org/app.git",
        "      builda push registry.example.org/app:1",
        "    env:",
        "    - {name: REGISTRY_AUTH_FILE, value: /auth/.dockerconfigjson}",
        "    securityContext:",
        *(f"      {line}" for line in pod.context),
        "    volumeMounts:",
        f"    - {{name: store, mountPath: {pod.store}}}",
        "    - {name: auth, mountPath: /auth, readOnly: true}",
        "  volumes:",
        "  - {name: store, emptyDir: {}}",
        "  - name: auth",
        "    secret: {secretName: registry-auth}",
    )
    return "".join(f"{line}\n" for line in lines)
