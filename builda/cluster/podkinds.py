"""The kinds of pods in which builda builds, and the best one that a namespace admits (docs/kubernetes.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builda.errors import Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENFORCE = "pod-security.kubernetes.io/enforce"
LEVELS = ("privileged", "baseline", "restricted")
USER_NAMESPACES = (1, 33)
"""The version of Kubernetes from which on `hostUsers: false` is there without a feature gate."""


class Kind(NamedTuple):
    """A pod's rights: the security context of its container, and the strictest PodSecurity level that admits it."""

    mode: str
    level: str
    host_users: bool
    context: Mapping[str, Any]


_USER = {"runAsUser": 1000, "runAsGroup": 1000}
_UNCONFINED = {"type": "Unconfined"}
KINDS = (
    Kind(
        "direct",
        "privileged",
        False,
        {"capabilities": {"add": ["SYS_ADMIN"]}, "appArmorProfile": _UNCONFINED},
    ),
    Kind(
        "userns",
        "privileged",
        False,
        {"procMount": "Unmasked", "seccompProfile": _UNCONFINED, "appArmorProfile": _UNCONFINED},
    ),
    Kind(
        "subid",
        "privileged",
        True,
        {
            **_USER,
            "allowPrivilegeEscalation": True,
            "capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID"]},
            "seccompProfile": _UNCONFINED,
            "appArmorProfile": _UNCONFINED,
        },
    ),
    Kind("chroot", "baseline", True, {"seccompProfile": {"type": "RuntimeDefault"}}),
    Kind(
        "traced",
        "restricted",
        True,
        {
            **_USER,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    ),
)
"""Best first, as in `builda doctor --pod`."""


def best(level: str | None, version: tuple[int, int], wanted: str | None = None) -> Kind:
    """The best kind for a namespace of this PodSecurity level (None: nothing is enforced) of a cluster of this version.

    Unsupported if the namespace does not admit the kind that is `wanted`.
    """
    if level is not None and level not in LEVELS:
        level = LEVELS[-1]  # as admission has it (PolicyToEvaluate of pod-security-admission)
    strictness = 0 if level is None else LEVELS.index(level)
    if wanted is None:
        return next(kind for kind in KINDS if _is_admitted(kind, strictness) and _is_known(kind, version))
    found = next((kind for kind in KINDS if kind.mode == wanted), None)
    if found is None:
        raise Unsupported(f"no pod is made for mode {wanted}", hint=f"there are {', '.join(k.mode for k in KINDS)}")
    if not _is_admitted(found, strictness):
        raise Unsupported(
            f"namespace enforces PodSecurity {level}, which admits no pod for mode {wanted}",
            hint=f"leave --mode out; the best there is {best(level, version).mode}",
        )
    return found


def level_in(words: str) -> str | None:
    """The PodSecurity level that refuses a pod in these words; None if something else refuses it."""
    found = re.search(r'violates PodSecurity "(\w+):', words)
    return found[1] if found is not None and found[1] in LEVELS else None


def _is_admitted(kind: Kind, strictness: int) -> bool:
    return LEVELS.index(kind.level) >= strictness


def _is_known(kind: Kind, version: tuple[int, int]) -> bool:
    return kind.host_users or version >= USER_NAMESPACES
