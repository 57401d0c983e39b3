"""`build --on` for several platforms: a Job for each, side by side, and an index of what they pushed."""

from __future__ import annotations

from builda.cli.building import clusterrequest
from builda.cli.core.output import check_files, print_line, print_words
from builda.cli.jobs import clustergiven, clusterjob
from builda.cli.jobs.clusterview import View
from builda.errors import Unsupported
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.options import Row
    from builda.cli.core.verbsession import Session
    from builda.cli.jobs.clustergiven import Prepared
    from builda.cli.jobs.clusterjob import RunningJobs
    from builda.cluster.connection import Cluster
    from builda.cluster.objects import JobOptions
    from builda.events import ImageBuilt
    from builda.oci.descriptor import Descriptor


class _Part(NamedTuple):
    """The image that one Job made, and its output."""

    image: ImageBuilt
    printed: str


def build_each(
    session: Session,
    cluster: Cluster,
    options: JobOptions,
    prepared: Prepared,
    rows: Sequence[Row],
    values: dict[str, Any],
    args: Mapping[str, str],
    *,
    live: bool,
) -> None:
    """Build for each platform on nodes of its architecture, and give the index of the images the names of -t.

    No layer is fetched: the images are in the registry as NAME:TAG-OS-ARCH, and the index names them by digest.
    """
    import time
    from concurrent.futures import ThreadPoolExecutor

    from builda.cli.core import shared_options
    from builda.events import ImageBuilt
    from builda.threads import wait_for_threads

    for name in ("iidfile", "iidfile_raw", "output", *clusterrequest.RETURNED):
        if values.get(name):
            raise Unsupported(f"--{name.replace('_', '-')} is for one platform, not for {len(values['platform'])}")
    check_files(values["logfile"])
    began = time.monotonic()
    platforms = [str(platform) for platform in shared_options.platforms(dict(values)) if platform is not None]
    view = _View(session, values, prepared.local, live=live)
    running = clusterjob.RunningJobs(cluster)
    feed = clustergiven.feeder(session, cluster, prepared.streams)

    def one(platform: str) -> _Part:
        own = {**values, "platform": (platform,), "tag": tuple(variant(tag, platform) for tag in values["tag"])}
        request = clusterrequest.request_of(rows, own, args, session.environ)
        running.check()
        job = clusterjob.made(cluster, session, options, request, prepared, own, platform)
        name = job["metadata"]["name"]
        with running.following(name):
            return _followed(session, cluster, name, view, running, feed)

    with ThreadPoolExecutor(len(platforms)) as threads:
        try:
            futures = [threads.submit(one, platform) for platform in platforms]
            for future in wait_for_threads(futures):
                future.result()
        except BaseException:
            running.end()
            raise
        finally:
            view.close("failed" if running.have_ended else "built")
    parts = [future.result() for future in futures]
    for part, platform in zip(parts, platforms, strict=True):
        _print_lines(part, platform, values)
    digest = joined(session, [part.image for part in parts], values["tag"], prepared.access)
    for tag in values["tag"]:
        if not session.quiet and not tag.startswith("docker://"):
            print_words(f"Successfully tagged {tag}")
    print_line(digest.digest.encoded)
    cached = all(part.image.cached for part in parts)
    seconds = time.monotonic() - began
    names = tuple(values["tag"])
    session.emit(ImageBuilt(id=digest.digest, digest=digest.digest, names=names, cached=cached, seconds=seconds))


class _View(View):
    """One view of all Jobs: the lines that they print wait, and their images are parts."""

    def prints(self, text: str) -> None:
        """Nothing: what is printed is put together in the end."""


def _followed(
    session: Session,
    cluster: Cluster,
    job: str,
    view: _View,
    running: RunningJobs,
    feed: Callable[[str], None] | None,
) -> _Part:
    """What one Job made."""
    from builda.cluster.follow import follow
    from builda.cluster.frames import Closed, Ended, Printed
    from builda.events import ImageBuilt

    image: ImageBuilt | None = None
    printed = ""

    def tell(text: str) -> None:
        if not running.have_ended:  # what was deleted here is no news
            session.warn(text)

    for frame in follow(cluster, job, tell, feed):
        running.check()
        match frame:
            case Printed(text):
                printed += text
            case ImageBuilt():
                image = frame
            case Closed():
                pass
            case Ended(error):
                if error is not None:
                    raise view.localized(error)
            case _:
                view.show(frame)
    assert image is not None, "a build that ended well has made an image"
    return _Part(image, printed)


def variant(tag: str, platform: str) -> str:
    """The name of one platform's image: NAME:TAG-OS-ARCH."""
    from builda.oci.reference import Reference

    prefix = "docker://" if tag.startswith("docker://") else ""
    reference = Reference.parse(tag.removeprefix(prefix))
    ending = platform.replace("/", "-")
    return f"{prefix}{reference._replace(tag=f'{reference.tag}-{ending}')}"


def _print_lines(part: _Part, platform: str, values: Mapping[str, Any]) -> None:
    """The lines of a part that a local build for several platforms prints."""
    for line in part.printed.splitlines():
        if line.startswith("Successfully tagged ") or line == part.image.id.encoded:
            continue
        for tag in values["tag"]:
            line = line.replace(variant(tag, platform), tag)
        print_line(line)


def joined(session: Session, images: Sequence[ImageBuilt], tags: Sequence[str], access: RegistryAccess) -> Descriptor:
    """The index of the images is at every name; its descriptor."""
    from builda.attestations.attached import in_order
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.oci.manifest import Index
    from builda.oci.reference import Reference

    if not tags:
        raise Unsupported("several platforms need a name for their index", hint="give it with -t")
    remote = session.builder.context.remote
    references = [Reference.parse(tag.removeprefix("docker://")) for tag in tags]
    entries = [
        entry
        for image in images
        for entry in _entries(remote.source(references[0]._replace(tag=None, digest=image.digest), access))
    ]
    data = Index(manifests=in_order(tuple(entries))).dump()
    index = Index(manifests=())
    made = Descriptor(media_type=index.media_type, digest=Digest.of(data), size=len(data))
    for reference in references:
        remote.sink(reference, access).put_manifest(made, data, top=True)
    return made


def _entries(source: Any) -> tuple[Descriptor, ...]:
    """The index's entry for an image in the registry; for an image with attestations, all entries of its own index."""
    from builda.oci.config import parse_config
    from builda.oci.manifest import Index, parse
    from builda.transfer.copyimage import read_blob

    descriptor, data = source.manifest()
    document = parse(data, descriptor.media_type)
    if isinstance(document, Index):
        return tuple(document.manifests)
    config = parse_config(read_blob(source, document.config))
    return (replace(descriptor, platform=config.platform),)
