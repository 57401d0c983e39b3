"""`--sbom`, `--provenance` and `--attest`, in the words of docker buildx and of Buildah: what they ask for."""

from __future__ import annotations

from builda.builder.imageoptions import Attest
from builda.cli.core.output import check_files
from builda.errors import InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_ON = ("true", "1")
_OFF = ("false", "0")
_FORMATS = {
    "spdx": "spdx-json",
    "spdx-json": "spdx-json",
    "cyclonedx": "cyclonedx-json",
    "cyclonedx-json": "cyclonedx-json",
}
_PRESETS = {
    "syft": "cyclonedx-json",
    "syft-cyclonedx": "cyclonedx-json",
    "syft-spdx": "spdx-json",
    "trivy": "cyclonedx-json",
    "trivy-cyclonedx": "cyclonedx-json",
    "trivy-spdx": "spdx-json",
}
"""Buildah's presets, and the format that each means."""
_FILES = ("sbom_output", "sbom_purl_output", "sbom_image_output", "sbom_image_purl_output")


def attest_of(values: dict[str, Any]) -> Attest | None:
    """What the options SBOM in `values` (which they leave) ask for; None for nothing.

    InvalidValue for what they cannot mean together, Unsupported for what builda does not do.
    """
    said, provenance, items = values.pop("sbom"), values.pop("provenance"), values.pop("attest")
    files: dict[str, str | None] = {name: values.pop(name) for name in _FILES}
    form, sboms = _sbom(said, files)
    mode, builder = _provenance(_fields(provenance or "false", "mode"), "--provenance")
    for item in items:
        fields = _fields(item, "type")
        kind = fields.pop("type", "")
        if kind == "sbom":
            sboms = sboms or _attached_sbom(fields, item)
        elif kind == "provenance":
            mode, builder = _provenance(fields, item)
        else:
            raise InvalidValue(f"unknown type of --attest: {item}", hint="it is type=sbom or type=provenance")
    if not (sboms or mode or any(files.values())):
        return None
    check_files(files["sbom_output"], files["sbom_purl_output"])
    return Attest(
        sboms=sboms,
        provenance=mode,
        builder=builder,
        form=form,
        output=files["sbom_output"],
        purl_output=files["sbom_purl_output"],
        image_output=_inside(files["sbom_image_output"]),
        image_purl_output=_inside(files["sbom_image_purl_output"]),
    )


def _sbom(said: str | None, files: Mapping[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """The format of files, and the formats that are attached."""
    if said is None or said.lower() in _OFF:
        if any(files.values()):
            name = next(name for name, value in files.items() if value).replace("_", "-")
            raise InvalidValue(f"--{name} needs --sbom", hint="--sbom=syft-cyclonedx writes CycloneDX, syft-spdx SPDX")
        return "", ()
    if said in _PRESETS:
        if not any(files.values()):
            raise InvalidValue(
                f"--sbom={said} needs --sbom-output, --sbom-image-output or their purl forms",
                hint="--sbom=true attaches an SBOM to the image",
            )
        return _PRESETS[said], ()
    if said.lower() in _ON:
        return "spdx-json", ("spdx-json",)
    if said.startswith("generator="):
        raise Unsupported(f"builda reads packages itself and runs no generator: {said}", hint="write --sbom=true")
    formats = [_FORMATS.get(word, "") for word in said.split(",")]
    if not all(formats):
        hint = "it is true, false, spdx-json or cyclonedx-json"
        raise InvalidValue(f"unknown --sbom: {said}", hint=f"{hint}, or {', '.join(_PRESETS)} with --sbom-output")
    return formats[0], tuple(dict.fromkeys(formats))


def _attached_sbom(fields: dict[str, str], item: str) -> tuple[str, ...]:
    if _is_on(fields.pop("disabled", "false"), item):
        return ()
    if "generator" in fields:
        raise Unsupported(f"builda reads packages itself and runs no generator: {item}", hint="write type=sbom")
    form = fields.pop("format", "spdx-json")
    if fields or form not in _FORMATS:
        raise InvalidValue(f"--attest cannot be read: {item}", hint="type=sbom takes format=spdx-json|cyclonedx-json")
    return (_FORMATS[form],)


def _provenance(fields: dict[str, str], item: str) -> tuple[Any, str | None]:
    """Mode and builder's id; (None, None) for no provenance."""
    mode = fields.pop("mode", "min")
    builder = fields.pop("builder-id", None)
    off = _is_on(fields.pop("disabled", "false"), item) or mode in _OFF
    version = fields.pop("version", "v1")
    if version != "v1":
        raise Unsupported(f"provenance of SLSA {version} is not made, only of v1: {item}")
    if fields:
        raise Unsupported(
            f"provenance has no {min(fields)}: {item}", hint="it takes mode=min|max, builder-id=URI and disabled=true"
        )
    if mode not in ("min", "max", *_ON, *_OFF):
        raise InvalidValue(f"unknown mode of provenance: {mode}", hint="it is min or max")
    return (None, None) if off else ("max" if mode == "max" else "min", builder)


def _fields(item: str, alone: str) -> dict[str, str]:
    """The `KEY=VALUE` of an option; a word by itself is the value of `alone`. InvalidValue for what is no CSV."""
    pairs = (part.partition("=") for part in _parts(item))
    return {key if equals else alone: value if equals else key for key, equals, value in pairs}


def _parts(item: str) -> list[str]:
    if '"' not in item and item.isprintable():  # nearly all; each build without options comes here
        return item.split(",")
    import csv

    try:
        return next(csv.reader([item], strict=True), [])
    except csv.Error as error:
        raise InvalidValue(f"option cannot be read, {error}: {item}") from error


def _is_on(said: str, item: str) -> bool:
    if said not in (*_ON, *_OFF):
        raise InvalidValue(f"disabled must be true or false: {item}")
    return said in _ON


def _inside(path: str | None) -> str | None:
    """A path of a file in the image."""
    if path is None:
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or path.endswith("/") or any(part.startswith(".wh.") for part in parts):
        raise InvalidValue(f"not the path of a file in the image: {path!r}")
    return path
