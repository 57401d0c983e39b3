"""Which stages become Jobs of their own."""

from __future__ import annotations

from builda.bake.jobgraph import Need, graph


def need(mark: str, *below: str, works: bool = True) -> Need:
    return Need(mark, mark, below, below[0] if below else None, works)


def test_a_stage_of_two_builds_is_done_first_and_read_by_both() -> None:
    found = graph({"x": [need("base"), need("x", "base")], "y": [need("base"), need("y", "base")]}, side_by_side=False)
    assert [(stage.mark, stage.build, stage.reads) for stage in found.stages] == [("base", "x", ())]
    assert found.reads == {"x": ("base",), "y": ("base",)}


def test_stages_of_one_build_only_are_its_own() -> None:
    found = graph({"x": [need("a"), need("x", "a")], "y": [need("b"), need("y", "b")]}, side_by_side=False)
    assert found.stages == ()


def test_a_stage_that_only_a_shared_one_needs_is_done_there() -> None:
    both = [need("root"), need("base", "root")]
    found = graph({"x": [*both, need("x", "base")], "y": [*both, need("y", "base")]}, side_by_side=False)
    assert [stage.mark for stage in found.stages] == ["base"]


def test_a_target_that_another_build_has_as_a_stage_is_shared() -> None:
    found = graph({"lib": [need("lib")], "app": [need("lib"), need("app", "lib")]}, side_by_side=False)
    assert [stage.mark for stage in found.stages] == ["lib"]
    assert found.reads == {"lib": ("lib",), "app": ("lib",)}


def test_stages_without_steps_are_no_jobs() -> None:
    base = need("base", works=False)
    assert graph({"x": [base, need("x", "base")], "y": [base, need("y", "base")]}, side_by_side=False).stages == ()


def test_one_build_has_jobs_for_stages_that_need_not_wait_for_each_other() -> None:
    needs = [need("base"), need("a", "base"), need("b", "base"), need("last", "a", "b")]
    found = graph({"": needs}, side_by_side=True)
    assert [(stage.mark, stage.reads) for stage in found.stages] == [("base", ()), ("a", ("base",)), ("b", ("base",))]
    assert set(found.reads[""]) == {"base", "a", "b"}


def test_a_chain_of_stages_is_one_job() -> None:
    needs = [need("a"), need("b", "a"), need("last", "b")]
    assert graph({"": needs}, side_by_side=True).stages == ()


def test_many_builds_are_sorted_out_at_once() -> None:
    builds = {f"t{n}": [need("base"), need(f"t{n}", "base")] for n in range(5000)}
    assert len(graph(builds, side_by_side=False).stages) == 1
