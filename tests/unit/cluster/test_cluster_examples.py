"""The examples for builds in a cluster: their form, and that what they ask builda for is there."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from builda.bake.reading import declared_in
from builda.bake.resolving import choose
from builda.cli.verbs import verb_named
from tests.support.schemas import NEWEST, check_kubernetes

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples/cluster"
KEYWORDS = frozenset(
    """after_script before_script cache default image include nil pages:deploy services spec stages variables
    workflow""".split()
)
"""What GitLab's reference of .gitlab-ci.yml names as keywords of the file, and as names that no job can have."""


def read(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def check_command(words: Iterable[str]) -> None:
    """The words are a command line that builda takes."""
    name, verb, *rest = words
    assert name == "builda"
    verb_named(verb).read(rest, {}, path=f"builda {verb}").values(verb_named(verb).rows)


def is_restricted(context: dict[str, Any]) -> bool:
    """Whether PodSecurity restricted admits a container with these rights."""
    return (
        context["runAsNonRoot"] is True
        and context["allowPrivilegeEscalation"] is False
        and context["capabilities"] == {"drop": ["ALL"]}
        and context["seccompProfile"] == {"type": "RuntimeDefault"}
    )


def commands(script: str) -> list[list[str]]:
    found = [shlex.split(line.removeprefix("exec ")) for line in script.splitlines() if "builda bake" in line]
    assert found
    return found


def test_the_job_for_kubectl_is_valid() -> None:
    job = read("kubectl.yaml")
    check_kubernetes(job, NEWEST)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for command in commands(container["args"][0]):
        check_command(command)
    assert is_restricted(container["securityContext"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


def test_the_tekton_task_has_the_form_of_one() -> None:
    task = read("tekton-task.yaml")
    assert (task["apiVersion"], task["kind"]) == ("tekton.dev/v1", "Task")
    (step,) = task["spec"]["steps"]
    container = {
        key: value for key, value in step.items() if key in ("name", "image", "env", "volumeMounts", "securityContext")
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}
    check_kubernetes(pod, NEWEST)
    assert is_restricted(step["securityContext"])
    check_command([*step["command"], *step["args"]])
    text = (EXAMPLES / "tekton-task.yaml").read_text()
    for kind, names in (("params", task["spec"]["params"]), ("results", task["spec"]["results"])):
        assert all(f"$({kind}.{one['name']}" in text for one in names)
    assert all(f"$(workspaces.{one['name']}.path)" in text for one in task["spec"]["workspaces"])


def test_the_argo_workflow_has_the_form_of_one() -> None:
    workflow = read("argo-workflow.yaml")
    assert (workflow["apiVersion"], workflow["kind"]) == ("argoproj.io/v1alpha1", "Workflow")
    spec = workflow["spec"]
    templates = {one["name"]: one for one in spec["templates"]}
    container = templates[spec["entrypoint"]]["container"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {
            "containers": [{"name": "main", **container}],
            "volumes": spec["volumes"],
            "securityContext": spec["securityContext"],
        },
    }
    check_kubernetes(pod, NEWEST)
    assert is_restricted({**spec["securityContext"], **container["securityContext"]})
    check_command([*container["command"], *container["args"]])
    text = (EXAMPLES / "argo-workflow.yaml").read_text()
    names = [one["name"] for one in spec["arguments"]["parameters"]]
    assert all(f"{{{{workflow.parameters.{name}}}}}" in text for name in names)


@pytest.mark.parametrize("directory", ["ci", "cluster", "kubernetes"])
def test_gitlab_jobs_are_no_keywords_and_keep_credentials_out_of_the_context(directory: str) -> None:
    """GitLab takes a job with the name of a keyword for the keyword, and refuses the file."""
    jobs = yaml.safe_load((ROOT / "examples" / directory / "gitlab-ci.yml").read_text())
    assert not set(jobs) & KEYWORDS
    for job in jobs.values():
        assert job["script"]
        assert not job["variables"]["REGISTRY_AUTH_FILE"].startswith("$CI_PROJECT_DIR")


def test_the_gitlab_job_asks_for_what_there_is() -> None:
    job = read("gitlab-ci.yml")["bake"]
    assert job["variables"]["BUILDA_ON"] == "kubernetes"
    for line in job["script"]:
        words = shlex.split(line.split("|")[-1])
        check_command(words)


def test_the_bake_file_declares_what_it_builds() -> None:
    declared = declared_in([str(EXAMPLES / "docker-bake.json")], {"TAG": "1"})
    found = choose(declared, (), (), {})
    assert [target.name for target in found.targets] == ["app-3-12", "app-3-13", "docs"]
    assert found.targets[0].texts("tags") == ("registry.example.org/app:1-py3.12",)
    assert found.targets[2].said["labels"] == {"org.opencontainers.image.version": "1"}
