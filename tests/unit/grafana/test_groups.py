"""The GPU's dashboard shows every metric of the catalogue, with its unit."""

from __future__ import annotations

from grafana import style
from grafana.groups import groups
from services.contract.catalogue import METRICS, SAMPLED, Unit
from services.contract.clocks_event import THERMAL, THROTTLING
from tests.support.grafana_dashboards import committed

(CARD,) = [dashboard for dashboard in committed() if dashboard.uid == "gpu-detail"]


def test_every_sampled_metric_is_in_one_group() -> None:
    grouped = [metric.column for group in groups() for metric in group.metrics]
    assert sorted(grouped) == sorted(m.column for m in SAMPLED if m.unit is not Unit.BITMASK)


def test_a_group_has_one_unit_and_one_kind() -> None:
    for group in groups():
        assert len({(m.unit, m.kind) for m in group.metrics}) == 1, group.title


def test_no_metric_is_without_a_group_of_its_own_yet() -> None:
    """A new metric shows up under "More"; give it a place in grafana/groups.py."""
    assert [group.title for group in groups() if group.title.startswith("More")] == []


def test_every_metric_is_shown_with_the_unit_of_the_catalogue() -> None:
    panels = {panel["title"]: panel for panel in CARD.panels()}
    for group in groups():
        panel = panels[group.title]
        assert panel["fieldConfig"]["defaults"]["unit"] == style.unit(group.metrics[0].column)
        assert all(metric.column in panel["targets"][0]["rawSql"] for metric in group.metrics)
    assert "clocks_event_reasons" in panels["Throttling"]["targets"][0]["rawSql"]


def test_every_unit_of_the_catalogue_has_one_of_grafana() -> None:
    assert set(style.GRAFANA_UNITS) == set(Unit)
    assert style.unit("total_energy_consumption") == "joule"
    assert all(style.unit(metric.column) for metric in METRICS)


def test_every_combination_of_reasons_is_decoded() -> None:
    states = style.throttle_states()
    assert set(states) == {bits for bits in range(THROTTLING + 1) if bits & ~THROTTLING == 0}
    assert states[0][0] == "not throttled"
    assert states[0x24] == ("power_cap + sw_thermal", style.RED)
    assert all((colour == style.RED) == bool(bits & THERMAL) for bits, (_, colour) in states.items())
