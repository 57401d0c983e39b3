"""Why a step was not found: what differs between its key and that of the nearest remembered step."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.store.steps import Steps


def explain_miss(steps: Steps, wanted: bytes) -> str:
    """In words, what differs between a key's inputs and those of the nearest remembered step of the same kind."""
    mine = _flat(json.loads(wanted))
    best: tuple[int, str] | None = None
    for _, result in steps.iter():
        other = _flat(json.loads(result.explained))
        if other.get("step.type") != mine.get("step.type"):
            continue
        differing = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        told = [name for name in differing if str(other.get(name)) != str(mine.get(name))] or differing
        text = "; ".join(f"{name} was {other.get(name)}, is {mine.get(name)}" for name in told)
        if best is None or len(differing) < best[0]:
            best = (len(differing), text)
    if best is None:
        return "no step of this kind was remembered"
    return best[1] or "the remembered result was removed"


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        items = ((f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
        return {name: text for path, item in items for name, text in _flat(item, path).items()}
    if isinstance(value, list):
        return {name: text for i, item in enumerate(value) for name, text in _flat(item, f"{prefix}[{i}]").items()}
    return {prefix: str(value)}
