"""What is asked of processes, and the forms in which profiles are shown."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from shoal_dashboard.profiles import flame_graph, stack_counts
from shoal_dashboard.profiles.rendering import rendered
from shoal_dashboard.profiles.request import MAX_SECONDS, Form, Kind, RequestError, pid_of, wanted

FOLDED = b"""\
main (a.py:1);work (a.py:5);<genexpr> & more (b.py:7) 60
main (a.py:1);work (a.py:5) 30
main (a.py:1) 10
nonsense
 5
"""


def test_stacks_become_a_tree_whose_counts_add_up() -> None:
    root = stack_counts.tree(stack_counts.parse(FOLDED))
    assert (root.count, root.own) == (100, 0)
    (main,) = root.children.values()
    assert (main.name, main.count, main.own) == ("main (a.py:1)", 100, 10)
    (work,) = main.children.values()
    assert (work.count, work.own) == (90, 30)


def test_a_flame_graph_is_well_formed_and_its_frames_lie_within_those_above_them() -> None:
    graph = ET.fromstring(rendered(Kind.CPU, FOLDED, Form.FLAME_GRAPH, "process 1"))
    assert "1.00 s" in graph.attrib["aria-label"]
    frames = {}
    for group in graph:
        title, rect = group[0].text, group[1].attrib
        assert title is not None
        frames[title.split(" (")[0]] = float(rect["x"]), float(rect["y"]), float(rect["width"])
    assert list(frames) == ["all: 1.00 s, 100.0 %", "main", "work", "<genexpr> & more"]
    (x1, y1, w1), (x2, y2, w2) = frames["work"], frames["<genexpr> & more"]
    assert y2 > y1 and x2 >= x1 and x2 + w2 <= x1 + w1 + 0.5
    assert w2 == pytest.approx(720, abs=1)


def test_a_flame_graph_of_nothing_and_one_without_end() -> None:
    ET.fromstring(rendered(Kind.MEMORY, b"", Form.FLAME_GRAPH, ""))
    endless = ";".join(f"f (x.py:{n})" for n in range(5_000)).encode() + b" 1000000\n"
    text = flame_graph.svg(stack_counts.tree(stack_counts.parse(endless)), str)
    assert text.count("<rect") <= 400
    narrow = b"".join(b"f%d 1\n" % n for n in range(20_000))
    assert flame_graph.svg(stack_counts.tree(stack_counts.parse(narrow)), str).count("<rect") == 1


def test_speedscope_gets_seconds_or_bytes() -> None:
    document = json.loads(rendered(Kind.CPU, FOLDED, Form.SPEEDSCOPE, "process 1"))
    (profile,) = document["profiles"]
    assert profile["unit"] == "seconds" and profile["endValue"] == pytest.approx(1.0)
    assert profile["samples"] == [[0, 1, 2], [0, 1], [0]]
    assert document["shared"]["frames"][2] == {"name": "<genexpr> & more", "file": "b.py", "line": 7}
    of_memory = json.loads(rendered(Kind.MEMORY, b"malloc 12\n", Form.SPEEDSCOPE, ""))
    assert of_memory["profiles"][0]["weights"] == [12]
    assert of_memory["shared"]["frames"] == [{"name": "malloc"}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"duration": "0"}, "duration=0"),
        ({"duration": str(MAX_SECONDS + 1)}, "duration="),
        ({"duration": "1e9"}, "duration=1e9"),
        ({"native": "perhaps"}, "native=perhaps"),
        ({"format": "table"}, "format=table"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        wanted(Kind.CPU, given)


def test_what_is_not_said_is_as_usual() -> None:
    assert wanted(Kind.CPU, {"native": "1"}) == wanted(Kind.CPU, {"native": "true", "duration": "10", "idle": "0"})
    assert pid_of({"pid": "12"}) == 12
    for wrong in ("", "-1", "0", "1;2", "٣"):
        with pytest.raises(RequestError):
            pid_of({"pid": wrong})
