"""Filters, limits and counts, on rows that are there."""

from __future__ import annotations

import pytest

from shoal_common.state_rows import ActorState, WorkerState
from shoal_dashboard.state.query import Filter, Query, QueryError, Row, parse, select


def actors(*states: str) -> list[Row]:
    rows = []
    for number, state in enumerate(states):
        row: Row = dict.fromkeys(ActorState.columns())
        rows.append(row | {"actor_id": f"{number:032x}", "state": state, "pid": number, "name": None})
    return rows


def ids(rows: list[Row]) -> list[int]:
    return [int(row["actor_id"], 16) for row in rows]


def test_filters_come_before_the_limit_and_all_is_counted() -> None:
    rows = actors(*["DEAD"] * 500, "ALIVE", *["DEAD"] * 500)
    found = select(rows, ActorState, Query([Filter("state", "=", "ALIVE")], limit=1))
    assert (ids(found.rows), found.filtered, found.total) == ([500], 1, 1001)
    found = select(rows, ActorState, Query([Filter("state", "!=", "ALIVE")], limit=3))
    assert (ids(found.rows), found.filtered, found.total) == ([0, 1, 2], 1000, 1001)


def test_detail_adds_columns() -> None:
    [usual] = select(actors("ALIVE"), ActorState, Query()).rows
    [whole] = select(actors("ALIVE"), ActorState, Query(detail=True)).rows
    assert list(usual) == ["actor_id", "class_name", "state", "job_id", "name", "node_id", "pid", "ray_namespace"]
    assert len(whole) == 20


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (Filter("state", "=", "alive"), [0]),
        (Filter("pid", "=", "1"), [1]),
        (Filter("pid", "!=", "1"), [0]),
        (Filter("name", "=", ""), [0, 1]),
        (Filter("name", "!=", "x"), [0, 1]),
    ],
)
def test_values_are_compared_as_what_the_column_has(filter_: Filter, expected: list[int]) -> None:
    assert ids(select(actors("ALIVE", "DEAD"), ActorState, Query([filter_])).rows) == expected


def test_truth_is_written_in_several_ways() -> None:
    row: Row = dict.fromkeys(WorkerState.columns()) | {"is_alive": True}
    for text in ("True", "true", "1"):
        assert select([row], WorkerState, Query([Filter("is_alive", "=", text)])).filtered == 1
    assert select([row], WorkerState, Query([Filter("is_alive", "=", "false")])).filtered == 0


@pytest.mark.parametrize(
    ("filter_", "said"),
    [
        (Filter("colour", "=", "red"), "Supported filter columns: actor_id"),
        (Filter("required_resources", "=", "1"), "column required_resources is not supported"),
        (Filter("state", "<", "ALIVE"), "predicate <"),
        (Filter("pid", "=", "many"), "pid=many"),
    ],
)
def test_a_filter_that_makes_no_sense_is_said_to(filter_: Filter, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        select(actors("ALIVE"), ActorState, Query([filter_]))


def test_a_query_as_rays_clients_write_it() -> None:
    query = parse(
        [
            ("limit", "7"),
            ("timeout", "24"),
            ("detail", "True"),
            ("exclude_driver", "True"),
            ("server_timeout_multiplier", "0.8"),
            ("filter_keys", "STATE"),
            ("filter_keys", "pid"),
            ("filter_predicates", "="),
            ("filter_predicates", "!="),
            ("filter_values", "ALIVE"),
            ("filter_values", "3"),
        ]
    )
    assert query == Query([Filter("state", "=", "ALIVE"), Filter("pid", "!=", "3")], limit=7, detail=True)


@pytest.mark.parametrize(
    "parameters",
    [
        [("limit", "all")],
        [("limit", "10001")],
        [("limit", "0")],
        [("limit", "-1")],
        [("detail", "perhaps")],
        [("filter_keys", "state")],
        [("filter_keys", "state"), ("filter_values", "ALIVE")],
    ],
)
def test_nonsense_is_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(QueryError):
        parse(parameters)


def test_pages_follow_one_another_also_when_something_comes_in() -> None:
    def row(number: int) -> Row:
        return dict.fromkeys(ActorState.columns(), "") | {"actor_id": f"a{number}"}

    rows = [row(number) for number in range(5)]
    first = select(rows, ActorState, Query(limit=2))
    assert [each["actor_id"] for each in first.rows] == ["a0", "a1"]
    second = select([row(9), *rows], ActorState, Query(limit=2, cursor=first.next_cursor))
    assert [each["actor_id"] for each in second.rows] == ["a2", "a3"]
    last = select(rows, ActorState, Query(limit=2, cursor=second.next_cursor))
    assert [each["actor_id"] for each in last.rows] == ["a4"]
    assert last.next_cursor == ""
    gone = select(rows[3:], ActorState, Query(limit=2, cursor=first.next_cursor))
    assert gone.filtered == 2
    with pytest.raises(QueryError):
        select(rows, ActorState, Query(cursor="garbage"))
