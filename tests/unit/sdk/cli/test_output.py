from __future__ import annotations

import csv
import json

import pytest

from shoal._cli.output import shown

COLUMNS = ["name", "size", "labels"]
ROWS = [
    {"name": "a,b", "size": 1, "labels": {"zone": "a"}},
    {"name": 'c"\n\x1b[31m', "size": None, "labels": {}},
]


def test_a_table_is_aligned_and_keeps_to_its_lines() -> None:
    assert shown(ROWS, COLUMNS, "table") == (
        'NAME      SIZE  LABELS\na,b       1     {"zone": "a"}\nc"  [31m        {}\n'
    )


def test_json_and_yaml_have_the_values_themselves() -> None:
    assert json.loads(shown(ROWS, COLUMNS, "json")) == ROWS
    assert json.loads(shown([], COLUMNS, "json")) == []
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(shown(ROWS, COLUMNS, "yaml")) == ROWS
    assert yaml.safe_load(shown([], COLUMNS, "yaml")) == []


def test_csv_is_read_again() -> None:
    lines = list(csv.reader(shown(ROWS, COLUMNS, "csv").splitlines()))
    assert lines == [COLUMNS, ["a,b", "1", '{"zone": "a"}'], ['c"  [31m', "", "{}"]]
