from __future__ import annotations

import pytest

from services.collector.targets import Target, TargetError, choose, hashmod, make_target, parse_groups, parse_static


@pytest.mark.parametrize(
    ("value", "modulus", "expected"),
    [
        ("baz", 1000, 976),  # both: Prometheus' own tests of relabelling
        ("foo\nbar", 1000, 734),
        ("anything", 1, 0),
    ],
)
def test_hashmod_is_prometheus(value: str, modulus: int, expected: int) -> None:
    assert hashmod(value, modulus) == expected


@pytest.mark.parametrize(
    ("entry", "url", "source"),
    [
        ("localhost:9400", "http://localhost:9400/metrics", "localhost:9400"),
        ("http://localhost:9400/metrics", "http://localhost:9400/metrics", "localhost:9400"),
        ("http://localhost:9400", "http://localhost:9400/metrics", "localhost:9400"),
        ("https://gpu1:443/metrics", "https://gpu1:443/metrics", "https://gpu1:443/metrics"),
        ("http://gpu1:9400/a/b?c=d", "http://gpu1:9400/a/b?c=d", "http://gpu1:9400/a/b?c=d"),
        ("http://u:secret@gpu1:9400/x", "http://u:secret@gpu1:9400/x", "http://gpu1:9400/x"),
        ("http://u:secret@gpu1:9400/metrics", "http://u:secret@gpu1:9400/metrics", "gpu1:9400"),
        ("[::1]:9400", "http://[::1]:9400/metrics", "[::1]:9400"),
    ],
)
def test_static_targets(entry: str, url: str, source: str) -> None:
    target = parse_static(entry)
    assert (target.url, target.source) == (url, source)


def test_credentials_are_no_part_of_the_address() -> None:
    assert parse_static("http://u:secret@gpu1:9400/x").address == "gpu1:9400"


@pytest.mark.parametrize(
    "entry", ["localhost", "a b:9400", "ftp://x:1/", "host:99999", "http://", ":9400", "x:1/metrics"]
)
def test_a_bad_target_is_named(entry: str) -> None:
    with pytest.raises(TargetError, match=r"TARGETS|not an address") as caught:
        parse_static(entry)
    assert repr(entry)[1:-1].removeprefix("http://").removeprefix("ftp://").rstrip("/") in str(caught.value)


def test_groups_carry_labels_and_prometheus_hidden_ones() -> None:
    [one, two] = parse_groups(
        [
            {
                "targets": ["gpu1:9400", "gpu2:9400"],
                "labels": {
                    "rack": "r1",
                    "__metrics_path__": "/gpu",
                    "__scheme__": "https",
                    "__param_collect[]": "dcgm",
                    "__meta_x": "y",
                },
            }
        ]
    )
    assert one.url == "https://gpu1:9400/gpu?collect%5B%5D=dcgm"
    assert one.source == one.url
    assert (two.address, two.labels) == ("gpu2:9400", {"rack": "r1"})


@pytest.mark.parametrize(
    "document",
    [
        {},
        "x",
        [{"targets": "gpu1:9400"}],
        [{"labels": {}}],
        [{"targets": [1]}],
        [{"targets": ["a:1"], "labels": {"x": 1}}],
        [{"targets": ["a:1"], "labels": {"": "1"}}],
        [{"targets": ["a:1"], "labels": []}],
        [{"targets": ["a:1"], "label": {}}],
        [{"targets": ["http://a:1/metrics"]}],
        [{"targets": ["a:1"], "labels": {"__scheme__": "gopher"}}],
        ["a:1"],
    ],
)
def test_a_bad_document_is_refused_whole(document: object) -> None:
    with pytest.raises(TargetError):
        parse_groups(document)


def test_null_labels_and_empty_groups_are_fine() -> None:
    assert parse_groups([{"targets": [], "labels": None}]) == []


def test_each_source_once_and_its_own_labels_win() -> None:
    first = make_target({"__address__": "a:1", "rack": "own"})
    again = make_target({"__address__": "a:1", "rack": "other"})
    other = make_target({"__address__": "a:1", "__metrics_path__": "/two"})
    chosen = choose([first, again, other], {"rack": "default", "cluster": "c"}, 0, 1)
    assert [dict(target.labels) for target in chosen] == [
        {"rack": "own", "cluster": "c"},
        {"rack": "default", "cluster": "c"},
    ]


def test_shards_share_all_targets_without_overlap() -> None:
    targets = [make_target({"__address__": f"gpu{n}:9400"}) for n in range(300)]
    shards = [choose(targets, {}, index, 3) for index in range(3)]
    assert sorted(t.source for shard in shards for t in shard) == sorted(t.source for t in targets)
    assert all(70 <= len(shard) <= 130 for shard in shards)
    for index, shard in enumerate(shards):
        assert all(hashmod(target.address, 3) == index for target in shard)


def test_targets_compare_by_content() -> None:
    assert make_target({"__address__": "a:1", "x": "y"}) == Target("a:1", "http://a:1/metrics", "a:1", {"x": "y"})
