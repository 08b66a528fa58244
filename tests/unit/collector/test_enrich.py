"""Labels -> identity, place, tenant; values -> percentages."""

from __future__ import annotations

import pytest

from services.collector.enrich import Place, derive, describe, host_of, series_suffix, understand
from services.contract.catalogue import LABEL_FIELDS
from services.contract.derived import percent
from services.contract.event import Derived, Tenant

PLACE = Place.of("gpu-7:9400", {"rack": "r1"})


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("gpu-7:9400", "gpu-7"),
        ("http://gpu-7:9400/metrics", "gpu-7"),
        ("https://user@gpu-7.example.org/metrics?x=1", "gpu-7.example.org"),
        ("10.0.0.7:9400", "10.0.0.7"),
        ("http://[2001:db8::7]:9400/metrics", "2001:db8::7"),
        ("gpu-7", "gpu-7"),
        ("http://[bad", "http://[bad"),
        ("", ""),
    ],
)
def test_host_of_a_target(source: str, host: str) -> None:
    assert host_of(source) == host


def test_place() -> None:
    place = Place.of("x:1", {"cluster": "c", "rack": "", "hostname": "n9", "__meta": "m", "team": "t"})
    assert place == Place("n9", {"cluster": "c"}, {"hostname": "n9", "team": "t"})
    assert Place.of("x:1", {}) == Place("x", {}, None)


@pytest.mark.parametrize("name", ["UUID", "uuid", "gpu_uuid"])
def test_uuid_by_any_name(name: str) -> None:
    assert understand({name: "GPU-1"}).key == ("GPU-1", None)


@pytest.mark.parametrize("labels", [{}, {"UUID": ""}, {"gpu": "0", "Hostname": "h"}, {"UUID": "x" * 129}])
def test_no_gpu(labels: dict[str, str]) -> None:
    assert understand(labels).key is None


def test_label_fields_are_identity() -> None:
    meaning = understand({"UUID": "GPU-1", **{name: f"{field}!" for name, field in LABEL_FIELDS.items()}})
    assert meaning.identity == {field: f"{field}!" for field in LABEL_FIELDS.values()}
    assert meaning.labels == {}


def test_text_too_long_for_its_field_stays_a_label() -> None:
    meaning = understand({"UUID": "GPU-1", "Hostname": "h" * 1025, "pod": "p" * 1025, "gpu": "40000", "device": "d"})
    assert meaning.identity == {"device": "d"}
    assert meaning.tenant is None
    assert set(meaning.labels) == {"Hostname", "pod", "gpu"}


@pytest.mark.parametrize("index", ["-1", "1.0", "\u0661", "", "x", "32768"])
def test_index_that_is_no_small_number(index: str) -> None:
    assert "index" not in understand({"UUID": "GPU-1", "gpu": index}).identity


@pytest.mark.parametrize(
    ("labels", "tenant"),
    [
        ({"pod": "p", "namespace": "n", "container": "c"}, Tenant(pod="p", namespace="n", container="c")),
        ({"pod_name": "p", "pod_namespace": "n", "container_name": "c"}, Tenant(pod="p", namespace="n", container="c")),
        ({"pod": "exporter", "exported_pod": "p"}, Tenant(pod="p")),
        ({"pod": "", "namespace": "", "container": ""}, None),
        ({"pod": "", "exported_pod": "p", "namespace": "n"}, Tenant(pod="p", namespace="n")),
    ],
)
def test_tenant(labels: dict[str, str], tenant: Tenant | None) -> None:
    assert understand(labels).tenant == tenant


def test_first_series_decides_and_others_fill_in() -> None:
    first = understand({"UUID": "GPU-1", "Hostname": "a", "vgpu": "1"})
    second = understand({"UUID": "GPU-1", "Hostname": "b", "device": "nvidia0", "vgpu": "2", "pod": "p"})
    link = understand({"gpu_uuid": "GPU-1", "model_name": "H100", "device": "x", "nvlink": "3", "pod": "q"})
    context = describe((first, second), (link,), PLACE)
    gpu = context.gpu
    assert (gpu.uuid, gpu.hostname, gpu.device, gpu.model, gpu.rack) == ("GPU-1", "a", "nvidia0", "H100", "r1")
    assert context.tenant == Tenant(pod="p")
    assert context.labels == {"vgpu": "1, 2"}
    assert series_suffix(link, context) == '{nvlink="3",pod="q"}'
    assert series_suffix(understand({"UUID": "GPU-1", "pod": "p", "vgpu": "1, 2"}), context) == ""


def test_sharing_pods_have_no_single_tenant() -> None:
    a, b = (understand({"UUID": "GPU-1", "pod": pod, "namespace": "n"}) for pod in "ab")
    context = describe((a, b), (), PLACE)
    assert context.tenant is None
    assert context.labels == {"tenants": "n/a/, n/b/"}
    assert series_suffix(a, context) == '{pod="a",namespace="n"}'


def test_suffix_is_escaped() -> None:
    odd = understand({"UUID": "GPU-1", "x": 'a"b\\c\nd'})
    assert series_suffix(odd, describe((), (odd,), PLACE)) == r'{x="a\"b\\c\nd"}'


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(1, 3, 33.33), (0, 5, 0.0), (5, 0, None), (None, 5, None), (5, None, None), (6, 5, 120.0)],
)
def test_percent(part: float | None, whole: float | None, expected: float | None) -> None:
    assert percent(part, whole) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"fb_used": [25], "fb_total": [100], "fb_free": [1]}, Derived(memory_percent=25.0)),
        ({"fb_used": [25], "fb_free": [70], "fb_reserved": [5]}, Derived(memory_percent=25.0)),
        ({"fb_used": [25], "fb_free": [75], "fb_reserved": [None]}, Derived(memory_percent=25.0)),
        ({"fb_used": [25]}, None),
        ({"fb_used": [None], "fb_total": [100]}, None),
        ({"power_usage": [350.0], "power_limit": [700.0]}, Derived(power_percent=50.0)),
        ({"power_usage": [350.0]}, None),
        ({}, None),
    ],
)
def test_derived(columns: dict[str, list[float | None]], expected: Derived | None) -> None:
    assert derive(columns, 1) == [expected]
