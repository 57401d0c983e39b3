"""Options of Jobs: labels and quantities that no cluster would take are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from builda.cli.building.clusteroptions import job_options
from builda.errors import InvalidValue

NONE: dict[str, Any] = {
    "builder_image": "registry.example.org/builda:1",
    "job_retries": None,
    "job_deadline": None,
    "job_ttl": None,
    "pod_template": None,
    "job_label": (),
    "request": (),
    "limit": (),
    "node_selector": (),
    "toleration": (),
    "priority_class": None,
}


@pytest.mark.parametrize(
    ("name", "item"),
    [
        *(("request", f"cpu={value}") for value in ("1", "0.5", ".5", "2.", "500m", "1e3", "4Gi", "2E", "3E-2", "1n")),
        ("job_label", "kueue.x-k8s.io/queue-name=builds"),
        ("job_label", "a="),
        ("job_label", "A_b.c-d=E_f.g-h"),
        ("node_selector", "kubernetes.io/arch=arm64"),
    ],
)
def test_what_a_cluster_takes_is_taken(name: str, item: str) -> None:
    options = job_options({**NONE, name: (item,)}, {})
    key, _, value = item.partition("=")
    assert {**options.requests, **options.labels, **options.node_selector} == {key: value}


@pytest.mark.parametrize(
    ("name", "item", "words"),
    [
        ("request", "cpu=lots", "--request is not a quantity: cpu=lots"),
        ("request", "cpu=", "--request is not a quantity: cpu="),
        ("limit", "memory=4GB", "--limit is not a quantity: memory=4GB"),
        ("limit", "memory=-1", "--limit is not a quantity: memory=-1"),
        ("job_label", "a b=c", "--job-label is not a label: a b=c"),
        ("job_label", "a=b/c", "--job-label is not a label: a=b/c"),
        ("job_label", "Host/a=b", "--job-label is not a label: Host/a=b"),
        ("job_label", "/a=b", "--job-label is not a label: /a=b"),
        ("job_label", "a=" + "b" * 64, "--job-label is not a label: a=" + "b" * 64),
        ("node_selector", "-a=b", "--node-selector is not a label: -a=b"),
    ],
)
def test_what_no_cluster_takes_is_named(name: str, item: str, words: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        job_options({**NONE, name: (item,)}, {})
    assert str(raised.value) == words
