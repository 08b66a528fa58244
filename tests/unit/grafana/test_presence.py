"""One rule and one text, wherever they are said."""

from __future__ import annotations

from grafana.fleet_attention import FACTS
from grafana.fleet_gpus import INVENTORY
from grafana.frame import LOST_ACTION
from grafana.presence import LOST_STATE, STATES, inventory
from grafana.selection import chosen
from tests.support.grafana_dashboards import committed


def test_who_is_there_is_the_fleets_rule_of_other_gpus() -> None:
    assert INVENTORY.count(chosen()) == 1
    assert inventory("g.hostname = 'a'").split("g.hostname = 'a'") == INVENTORY.split(chosen())


def test_the_fleet_says_the_same_of_what_is_lost() -> None:
    (lost,) = (fact for fact in FACTS if fact.holds.startswith("l.lost_at IS NOT NULL"))
    assert lost.action == LOST_ACTION
    assert lost.reason.startswith(f"'{LOST_STATE}'")
    said = {query.dashboard for d in committed() for query in d.queries() if LOST_ACTION in query.sql}
    assert said == {"gpu-fleet", "gpu-telemetry", "gpu-detail"}


def test_every_state_has_its_own_word() -> None:
    assert all(text == state for state, (text, _) in STATES.items())
