"""The expander against the examples of Grafana's documentation and of the help in its PostgreSQL query editor."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.support.grafana_sql import Context, GrafanaError, TimeRange, Variable, duration, expand, parse_duration

HELP = TimeRange(
    dt.datetime(2017, 4, 21, 5, 1, 17, tzinfo=dt.UTC),
    dt.datetime(2017, 4, 21, 5, 6, 17, tzinfo=dt.UTC),
)
"""The range of the examples in the query editor's help."""


def context(
    *variables: Variable, time_range: TimeRange = HELP, timescaledb: bool = True, interval: int = 10
) -> Context:
    named = {variable.name: variable for variable in variables}
    return Context(time_range, named, dt.timedelta(seconds=interval), timescaledb)


# --- macros: the query editor's table ---------------------------------------------------------------------------------

PLAIN = {
    "$__time(dateColumn)": 'dateColumn AS "time"',
    "$__timeEpoch(dateColumn)": 'extract(epoch from dateColumn) as "time"',
    "$__timeFilter(dateColumn)": "dateColumn BETWEEN '2017-04-21T05:01:17Z' AND '2017-04-21T05:06:17Z'",
    "$__timeFrom()": "'2017-04-21T05:01:17Z'",
    "$__timeTo()": "'2017-04-21T05:06:17Z'",
    "$__timeGroup(dateColumn,'5m')": "floor(extract(epoch from dateColumn)/300)*300",
    "$__timeGroup(dateColumn , '5m')": "floor(extract(epoch from dateColumn)/300)*300",
    "$__timeGroupAlias(dateColumn,'5m')": 'floor(extract(epoch from dateColumn)/300)*300 AS "time"',
    "$__unixEpochFilter(dateColumn)": "dateColumn >= 1492750877 AND dateColumn <= 1492751177",
    "$__unixEpochFrom()": "1492750877",
    "$__unixEpochTo()": "1492751177",
    "$__unixEpochNanoFilter(dateColumn)": "dateColumn >= 1492750877000000000 AND dateColumn <= 1492751177000000000",
    "$__unixEpochNanoFrom()": "1492750877000000000",
    "$__unixEpochNanoTo()": "1492751177000000000",
    "$__unixEpochGroup(dateColumn,'5m')": "floor((dateColumn)/300)*300",
    "$__unixEpochGroupAlias(dateColumn,'5m')": 'floor((dateColumn)/300)*300 AS "time"',
}


@pytest.mark.parametrize("macro", PLAIN)
def test_macros_without_timescaledb(macro: str) -> None:
    assert expand(macro, context(timescaledb=False)) == PLAIN[macro]


@pytest.mark.parametrize(("interval", "seconds"), [("5m", "300.000"), ("12d", "1036800.000"), ("20ms", "0.020")])
def test_time_group_with_timescaledb(interval: str, seconds: str) -> None:
    assert expand(f"GROUP BY $__timeGroup(t, '{interval}')", context()) == f"GROUP BY time_bucket('{seconds}s',t)"


def test_time_group_before_a_comma_is_the_alias_form() -> None:
    """Kept by Grafana from 5.2; also where it spoils a GROUP BY."""
    assert expand("SELECT $__timeGroup(t,'5m'), v", context()) == "SELECT time_bucket('300.000s',t) AS \"time\", v"
    assert expand("SELECT $__timeGroup(t,'5m') AS t, v", context()) == "SELECT time_bucket('300.000s',t) AS t, v"


def test_fractions_of_a_second_have_no_trailing_zeros() -> None:
    half = TimeRange(HELP.start + dt.timedelta(milliseconds=500), HELP.end)
    assert expand("$__timeFrom()", context(time_range=half)) == "'2017-04-21T05:01:17.5Z'"


def test_times_are_sent_in_utc() -> None:
    tokyo = dt.timezone(dt.timedelta(hours=9))
    there = TimeRange(HELP.start.astimezone(tokyo), HELP.end.astimezone(tokyo))
    assert expand("$__timeFrom()", context(time_range=there)) == "'2017-04-21T05:01:17Z'"


def test_an_example_of_the_documentation() -> None:
    """Page "PostgreSQL query editor", time series queries."""
    query = """SELECT
      $__timeGroupAlias("time_date_time",'5m'),
      min("value_double"),
      'min' as metric
    FROM test_data
    WHERE $__timeFilter("time_date_time")
    GROUP BY time
    ORDER BY time"""
    assert (
        expand(query, context(timescaledb=False))
        == """SELECT
      floor(extract(epoch from "time_date_time")/300)*300 AS "time",
      min("value_double"),
      'min' as metric
    FROM test_data
    WHERE "time_date_time" BETWEEN '2017-04-21T05:01:17Z' AND '2017-04-21T05:06:17Z'
    GROUP BY time
    ORDER BY time"""
    )


@pytest.mark.parametrize(
    "sql",
    [
        "$__timeGroup(t,'5m',0)",
        "$__timeGroup(t,'5m',NULL)",
        "$__timeGroupAlias(t,'5m',previous)",
        "$__unixEpochGroup(t,'5m',0)",
        "$__timeGroup(t,'1M')",
        "$__timeGroup(t)",
        "$__timeFilter()",
        "$__timeFrom(t)",
        "$__timeFilter",
        "$__timeFilter (t)",
        "$__timeFilter(to_timestamp(t))",
        "$__timefilter(t)",
        "$__madeUp(t)",
        "$__madeUp",
        "${__madeUp}",
        "$__range",
        "${__range_s}",
        "${__from:date:YYYY-MM}",
        "$nobody",
        "${nobody}",
        "[[nobody]]",
        "${nobody.field}",
        "${broken",
    ],
)  # fmt: skip
def test_what_is_unknown_or_refused_raises(sql: str) -> None:
    with pytest.raises(GrafanaError):
        expand(sql, context())


# --- global variables: page "Add variables" ---------------------------------------------------------------------------

MOMENT = dt.datetime(2020, 7, 13, 20, 19, 9, 254_000, dt.UTC)


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("${__from}", "1594671549254"),
        ("$__from", "1594671549254"),
        ("${__from:date}", "2020-07-13T20:19:09.254Z"),
        ("${__from:date:iso}", "2020-07-13T20:19:09.254Z"),
        ("${__from:date:seconds}", "1594671549"),
        ("${__to:date:seconds}", "1594671609"),
    ],
)
def test_from_and_to(sql: str, wanted: str) -> None:
    minute = TimeRange(MOMENT, MOMENT + dt.timedelta(minutes=1))
    assert expand(sql, context(time_range=minute)) == wanted


def test_interval_has_a_unit_and_milliseconds_have_none() -> None:
    """`$__interval` 20m goes with `$__interval_ms` 1200000."""
    assert expand("$__interval $__interval_ms ${__interval_ms}", context(interval=1200)) == "20m 1200000 1200000"
    assert expand("$__timeGroup(t,'$__interval')", context(interval=120)) == "time_bucket('120.000s',t)"


@pytest.mark.parametrize("text", ["10s", "2m", "1h", "1d", "90s", "500ms"])
def test_durations(text: str) -> None:
    assert duration(parse_duration(text)) == text


# --- dashboard variables: pages "Variable syntax" and "PostgreSQL template variables" ---------------------------------

SERVERS = Variable("servers", ("test1", "test2"), multi=True)


@pytest.mark.parametrize(
    ("style", "values", "wanted"),
    [
        ("csv", ("test1", "test2"), "test1,test2"),
        ("doublequote", ("test1", "test2"), '"test1","test2"'),
        ("json", ("test1", "test2"), '["test1","test2"]'),
        ("pipe", ("test1.", "test2"), "test1.|test2"),
        ("raw", ("test1.", "test2"), "test1.,test2"),
        ("regex", ("test1.", "test2"), r"(test1\.|test2)"),
        ("singlequote", ("test1", "test2"), "'test1','test2'"),
        ("singlequote", ("test'1",), r"'test\'1'"),
        ("sqlstring", ("test'1", "test2"), "'test''1','test2'"),
    ],
)
def test_formats(style: str, values: tuple[str, ...], wanted: str) -> None:
    variable = Variable("servers", values, multi=True)
    assert expand(f"${{servers:{style}}}", context(variable)) == wanted
    assert expand(f"[[servers:{style}]]", context(variable)) == wanted


@pytest.mark.parametrize("style", ["distributed", "lucene", "glob", "text", "queryparam", "percentencode", "madeup"])
def test_formats_that_make_no_sql_are_refused(style: str) -> None:
    with pytest.raises(GrafanaError, match="format"):
        expand(f"${{servers:{style}}}", context(SERVERS))


@pytest.mark.parametrize("written", ["$hostname", "${hostname}", "[[hostname]]"])
def test_values_are_quoted_only_when_several_may_be_chosen(written: str) -> None:
    single = Variable("hostname", ("server01",))
    several = Variable("hostname", ("server01", "server02"), multi=True)
    one_of_several = Variable("hostname", ("server01",), multi=True)
    with_all = Variable("hostname", ("server01",), include_all=True)
    assert expand(f"= '{written}'", context(single)) == "= 'server01'"
    assert expand(f"IN({written})", context(several)) == "IN('server01','server02')"
    assert expand(f"IN({written})", context(one_of_several)) == "IN('server01')"
    assert expand(f"IN({written})", context(with_all)) == "IN('server01')"


def test_quotes_in_values_are_doubled() -> None:
    name = "o'brien"
    assert expand("'$x'", context(Variable("x", (name,)))) == "'o''brien'"
    assert expand("$x", context(Variable("x", (name, "b"), multi=True))) == "'o''brien','b'"


def test_a_custom_value_of_all_is_put_in_as_it_stands() -> None:
    everything = Variable("x", ("a", "b"), multi=True, include_all=True, all_value="'%'")
    assert expand("LIKE $x", context(everything)) == "LIKE '%'"
    assert expand("LIKE ${x:sqlstring}", context(everything)) == "LIKE '%'"
    chained = Variable("x", (), include_all=True, all_value="SELECT host FROM t WHERE c IN ($servers)")
    assert expand("IN ($x)", context(chained, SERVERS)) == "IN (SELECT host FROM t WHERE c IN ('test1','test2'))"


def test_all_of_no_options_is_nothing_at_all() -> None:
    """Then `IN ($x)` is a syntax error, in Grafana as here."""
    assert expand("IN ($x)", context(Variable("x", (), multi=True, include_all=True))) == "IN ()"


def test_the_name_ends_where_the_word_ends() -> None:
    host, hosts = Variable("host", ("a",)), Variable("hosts", ("b",))
    assert expand("$host.$hosts ${host}s", context(host, hosts)) == "a.b as"


def test_values_are_not_searched_for_variables_but_for_macros() -> None:
    """One pass each, in Grafana's order."""
    host, other = Variable("host", ("$other",)), Variable("other", ("b",))
    assert expand("$host", context(host, other)) == "$other"
    assert expand("$host", context(Variable("host", ("$__timeFrom()",)))) == "'2017-04-21T05:01:17Z'"


@pytest.mark.parametrize("sql", ["SELECT $$ text $$", "SELECT '{1,2}'::int[]", "a[1]", "jsonb -> 'a'", "50 %", "'$'"])
def test_plain_sql_stays_as_it_is(sql: str) -> None:
    assert expand(sql, context()) == sql
