"""User namespaces: only the question whether this process is in one; making them comes with rootless builds."""

from __future__ import annotations


def in_user_namespace() -> bool:
    """Whether this process's ids are mapped, that is, whether its root is not the machine's root."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            rows = [tuple(map(int, line.split())) for line in file]
    except FileNotFoundError:  # a kernel without user namespaces
        return False
    return rows != [(0, 0, 0xFFFFFFFF)]
