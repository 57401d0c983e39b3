"""Which step a user means, of a plan that is compiled and not performed."""

from __future__ import annotations

import pytest

from builda.builder.debug.stepsearch import found_step
from builda.errors import InvalidValue
from builda.frontend.compile import to_plan
from builda.frontend.compileoptions import CompileOptions
from builda.frontend.parse import parse
from builda.frontend.sourcetext import SourceText
from builda.oci.config import ImageConfig, empty_config
from builda.oci.descriptor import Platform
from builda.plan import Plan

AMD64 = Platform.parse("linux/amd64")
TEXT = """\
FROM base AS first
RUN one
ENV A=b

FROM base
WORKDIR /w
RUN two && \\
    three
COPY --from=first /x /y
"""


def plan_of(text: str) -> Plan:
    def config_of(_name: str, platform: Platform) -> ImageConfig:
        return empty_config(platform)

    options = CompileOptions(platform=AMD64, build_platform=AMD64)
    return to_plan(parse(SourceText.of(text, "dir/Containerfile")), options, config_of).plan


@pytest.mark.parametrize(
    ("where", "target", "text"),
    [
        ("2", 1, "WORKDIR /w"),
        ("3", 1, "RUN two"),
        ("first:2", 0, "RUN one"),
        ("FIRST:3", 0, "ENV A=b"),
        ("1:4", 1, "COPY --from=first /x /y"),
        ("dir/Containerfile:2", 0, "RUN one"),
        ("Containerfile:4", 0, "ENV A=b"),
        ("./dir/Containerfile:8", 1, "RUN two"),
        (":9", 1, "COPY --from=first /x /y"),
    ],
)
def test_a_step_is_found(where: str, target: int, text: str) -> None:
    plan, step = found_step(plan_of(TEXT), where, {"dir/Containerfile": 9})
    assert plan.target == target
    steps = plan.stages[target].steps
    at = next(index for index, one in enumerate(steps) if one is step)
    assert next(one.text for one in steps[at:] if one.text).startswith(text)
    assert at == 0 or steps[at - 1].text  # the first part of the instruction


@pytest.mark.parametrize(
    "where", ["", ":", "0", "1", "5", "x:2", "first:", "2:2", ":0", ":10", ":1", "Containerfile:5", "\u00b2"]
)
def test_what_is_no_step(where: str) -> None:
    with pytest.raises(InvalidValue) as failure:
        found_step(plan_of(TEXT), where, {"dir/Containerfile": 9})
    assert failure.value.hint or "no such line" in str(failure.value)


def test_of_two_files_a_line_needs_the_name() -> None:
    with pytest.raises(InvalidValue, match="no such stage or Containerfile: :2"):
        found_step(plan_of(TEXT), ":2", {"dir/Containerfile": 9, "other": 3})
