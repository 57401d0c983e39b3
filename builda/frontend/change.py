"""`commit --change`: Containerfile instructions that only change the configuration, as edits of one."""

from __future__ import annotations

from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.frontend.compile import to_plan
from builda.frontend.compileoptions import CompileOptions
from builda.frontend.parse import parse
from builda.frontend.sourcetext import SourceText, decode
from builda.plan import Configure
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.oci.config import ImageConfig
    from builda.oci.descriptor import Platform
    from builda.oci.edits import ConfigEdit

_KNOWN = frozenset(
    "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL MAINTAINER ONBUILD SHELL STOPSIGNAL USER VOLUME WORKDIR".split()
)
_PLACE = "--change"


def edits_of(config: ImageConfig, texts: tuple[str, ...]) -> tuple[ConfigEdit, ...]:
    """The edits that the instructions `texts`, in order, make to `config`.

    They mean what they would in a Containerfile below FROM an image with that configuration. Unsupported for one that
    would touch files, InvalidValue for one that is malformed.
    """
    if not texts:
        return ()
    for text in texts:
        _check(text.split(None, 1)[0].upper() if text.strip() else "", text)
    written = "FROM base\n" + "".join(f"{text}\n" for text in texts)
    before = replace(config, onbuild=())  # the triggers of a base act in builds

    def config_of(name: str, platform: Platform) -> ImageConfig:
        return before

    options = CompileOptions(platform=config.platform, build_platform=config.platform)
    try:
        source = decode(written.encode(errors="surrogatepass"), _PLACE)  # refuses what is not UTF-8
        parsed = parse(SourceText.of(source, _PLACE))
        plan = to_plan(parsed, options, config_of).plan
    except BuildaError as error:
        raise InvalidValue(f"{_PLACE}: {error}", hint=error.hint) from error
    for instruction in parsed.instructions[1:]:  # a text may have several lines
        _check(instruction.keyword, f"{instruction.written} {instruction.value}")
    steps = plan.stages[plan.target].steps
    return tuple(edit for step in steps if isinstance(step, Configure) for edit in step.edits)


def _check(keyword: str, text: str) -> None:
    if keyword not in _KNOWN:
        hint = f"there are {', '.join(sorted(_KNOWN))}"
        raise Unsupported(f"not an instruction that changes the configuration: {text}", hint=hint)
