"""builda builds container images without a daemon.

    import builda

    with builda.open_builder() as builder:
        container = builder.from_image("docker.io/library/alpine")
        builder.run(container, builda.Run(args=("apk", "add", "curl")))
        builder.commit(container, builda.CommitOptions(destination="app:1", remove=True))
        image = builda.build_directory(builder, "app/", names=("app:2",), build_args={"VERSION": "2"})

A script's working containers are gone when it ends, and its names count only if it succeeds, in a session:

    with builda.session() as s:
        container = s.from_("docker.io/library/alpine")
        s.run(container, "apk", "add", "curl")
        s.commit(container, "app:1")

Names are imported when they are first used: `import builda` alone costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes three milliseconds, which `builda --version` need not pay
if TYPE_CHECKING:
    from builda import errors as errors
    from builda import events as events
    from builda.api import open_builder
    from builda.builder.builder import Builder
    from builda.builder.imageoptions import (
        CacheChoice,
        CommitOptions,
        FromOptions,
        Inputs,
        PullOptions,
        PushOptions,
        RegistryAccess,
    )
    from builda.containerfile import build_directory
    from builda.errors import BuildaError, CommandFailed
    from builda.oci import edits as edits
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Digest
    from builda.plan import (
        Configure,
        Context,
        Copy,
        FromContainer,
        FromImage,
        MakeDirectory,
        NamedContext,
        Run,
        RunMount,
        RunOptions,
    )
    from builda.sessionapi import Session, open_session, session
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image, Store

__version__ = "0.1.0"

__all__ = [
    "BuildaError",
    "Builder",
    "CacheChoice",
    "CommandFailed",
    "CommitOptions",
    "Configure",
    "Context",
    "Copy",
    "Descriptor",
    "Digest",
    "FromContainer",
    "FromImage",
    "FromOptions",
    "Image",
    "Inputs",
    "MakeDirectory",
    "NamedContext",
    "Platform",
    "PullOptions",
    "PushOptions",
    "RegistryAccess",
    "Run",
    "RunMount",
    "RunOptions",
    "Session",
    "Store",
    "WorkingContainer",
    "__version__",
    "build_directory",
    "edits",
    "errors",
    "events",
    "open_builder",
    "open_session",
    "session",
]

_MODULES = {"edits": "builda.oci.edits", "errors": "builda.errors", "events": "builda.events"}
_PLACES = {
    "builda.api": ("open_builder",),
    "builda.builder.builder": ("Builder",),
    "builda.builder.imageoptions": (
        "CacheChoice",
        "CommitOptions",
        "FromOptions",
        "Inputs",
        "PullOptions",
        "PushOptions",
        "RegistryAccess",
    ),
    "builda.containerfile": ("build_directory",),
    "builda.errors": ("BuildaError", "CommandFailed"),
    "builda.oci.descriptor": ("Descriptor", "Platform"),
    "builda.oci.digest": ("Digest",),
    "builda.plan": (
        "Configure",
        "Context",
        "Copy",
        "FromContainer",
        "FromImage",
        "MakeDirectory",
        "NamedContext",
        "Run",
        "RunMount",
        "RunOptions",
    ),
    "builda.sessionapi": ("Session", "open_session", "session"),
    "builda.store.containers": ("WorkingContainer",),
    "builda.store.store": ("Image", "Store"),
}


def __getattr__(name: str) -> object:
    """A public name, from the module that has it."""
    module = _MODULES.get(name) or next((module for module, names in _PLACES.items() if name in names), None)
    if module is not None:
        from importlib import import_module

        found = import_module(module)
        return found if name in _MODULES else getattr(found, name)
    raise AttributeError(f"module 'builda' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
