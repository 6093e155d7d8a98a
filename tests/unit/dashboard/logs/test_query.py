from __future__ import annotations

import pytest

from shoal_dashboard.logs.query import LogQuery, QueryError, grouped, nodes_to_ask, parse, request
from shoal_proto.v1 import gcs_pb2 as pb

TASK, NODE = "ab" * 20, b"n" * 16


def test_a_question_in_rays_words() -> None:
    given = {"task_id": TASK.upper(), "attempt_number": "1", "lines": "-1", "suffix": "err", "filter_ansi_code": "true"}
    query = parse({**given, "timeout": "30"}, "stream")
    assert query == LogQuery(task_id=TASK, attempt=1, lines=0, stderr=True, follow=True, without_colours=True)
    asked = request(query, "")
    assert (asked.attempt, asked.last_lines, asked.follow, asked.stderr) == (2, 0, True, True)
    assert request(parse({"actor_id": "cd"}, "file"), "").attempt == 0, "attempts are a task's"


@pytest.mark.parametrize(
    "given, said",
    [
        ({}, "whose log"),
        ({"filename": "raylet.log"}, "node_id or node_ip"),
        ({"task_id": TASK, "lines": "many"}, "no whole number"),
        ({"task_id": TASK, "lines": "-2"}, "with -1"),
        ({"task_id": TASK, "lines": "1000000000"}, "with -1"),
        ({"task_id": TASK, "suffix": "log"}, "neither out nor err"),
    ],
)
def test_a_question_that_makes_no_sense(given: dict[str, str], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        parse(given, "file")


def test_a_name_to_save_by_cannot_leave_its_header() -> None:
    assert parse({"task_id": TASK, "download_filename": 'a".txt\r\nX: y'}, "file").download_name == "a.txtXy"


def test_dead_nodes_are_not_asked() -> None:
    alive = pb.NodeInfo(node_id=NODE, host="h", state=pb.NODE_STATE_ALIVE)
    dead = pb.NodeInfo(node_id=b"d" * 16, host="h", state=pb.NODE_STATE_DEAD)
    assert nodes_to_ask([dead, alive], "", "h") == [alive]
    assert nodes_to_ask([dead, alive], NODE.hex(), "") == [alive]
    for node_id, ip in (((b"d" * 16).hex(), ""), ("", "other")):
        with pytest.raises(QueryError):
            nodes_to_ask([dead, alive], node_id, ip)


def test_files_are_listed_by_rays_names_of_kinds() -> None:
    names = ["worker-ab.out", "worker-ab.err", "raylet.log", "worker-template.err", "head.log"]
    assert grouped(names) == {
        "worker_out": ["worker-ab.out"],
        "worker_err": ["worker-ab.err", "worker-template.err"],
        "raylet": ["raylet.log"],
        "internal": ["head.log"],
    }
