"""Which rows somebody wants: filters first, then the limit, and how many there are of each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal_common.state_rows import DEFAULT_LIMIT, MAX_LIMIT, StateRow

Row = dict[str, Any]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class QueryError(ValueError):
    """What is asked for makes no sense; the message says what, and what would."""


@dataclass(frozen=True, slots=True)
class Filter:
    """``predicate``: "=" or "!=". Texts are compared in any case."""

    column: str
    predicate: str
    value: str


@dataclass(frozen=True, slots=True)
class Query:
    filters: Sequence[Filter] = ()
    limit: int = DEFAULT_LIMIT
    #: All columns, not only the usual ones.
    detail: bool = False
    #: Of tasks: a node's report that the answer is to know of, as <node id>:<incarnation>:<number>; empty = none.
    after: str = ""
    #: Of tasks: only those that are at hand, none of the archive.
    recent: bool = False
    #: Of the page before: what comes behind it; empty = from the beginning.
    cursor: str = ""
    #: Columns besides those of Ray's, which the pages show.
    also: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """``filtered``: of ``total`` rows, how many meet the filters; ``rows``: as many of them as the limit allows."""

    rows: list[Row]
    total: int
    filtered: int
    #: What could not be asked, for humans; empty = all could.
    missing: str = ""
    warnings: list[str] = field(default_factory=list)
    #: For the next query; empty = these are the last ones.
    next_cursor: str = ""


def parse(parameters: Sequence[tuple[str, str]]) -> Query:
    """From those of an address, in order. Others than a list has are passed over, as Ray does: ``timeout``,
    ``server_timeout_multiplier`` and ``exclude_driver`` ask for nothing here. Raises: QueryError."""
    values: dict[str, list[str]] = {}
    for name, value in parameters:
        values.setdefault(name, []).append(value)
    keys, predicates, wanted = (values.get(f"filter_{name}", []) for name in ("keys", "predicates", "values"))
    if not len(keys) == len(predicates) == len(wanted):
        raise QueryError("a filter is one each of filter_keys, filter_predicates and filter_values")
    return Query(
        filters=[Filter(key.lower(), *rest) for key, *rest in zip(keys, predicates, wanted, strict=True)],
        limit=limit_of(values.get("limit", [str(DEFAULT_LIMIT)])[-1]),
        detail=_boolean("detail", values.get("detail", ["false"])[-1]),
        after=values.get("after", [""])[-1],
    )


def select(rows: Sequence[Row], kind: type[StateRow], query: Query) -> Selection:
    """Of rows that have all columns of ``kind``. Raises: QueryError."""
    tests = [_test(filter_, kind) for filter_ in query.filters]
    kept = [row for row in rows if all(test(row) for test in tests)] if tests else rows
    columns = (*kind.columns(detail=query.detail), *query.also)
    begin = _behind(kept, columns[0], query.cursor)
    end = begin + query.limit
    shown = [{name: row[name] for name in columns} for row in kept[begin:end]]
    more = f"{end}-{shown[-1][columns[0]]}" if end < len(kept) else ""
    return Selection(shown, total=len(rows), filtered=len(kept), next_cursor=more)


def _behind(rows: Sequence[Row], key: str, cursor: str) -> int:
    """Where the page after it begins: behind the row it names, wherever that is by now; where it was if it has gone."""
    if not cursor:
        return 0
    number, _, last = cursor.partition("-")
    if not number.isdecimal() or len(number) > 9:
        raise QueryError(f"{cursor[:100]!r} is not a cursor: take the one of the page before")
    at = int(number)
    if 0 < at <= len(rows) and str(rows[at - 1][key]) == last:
        return at
    return next((place for place, row in enumerate(rows, 1) if str(row[key]) == last), min(at, len(rows)))


def _test(filter_: Filter, kind: type[StateRow]) -> Callable[[Row], bool]:
    name = filter_.column
    if name not in kind.filterable_columns():
        raise QueryError(
            f"The given filter column {name} is not supported. Supported filter columns: "
            f"{', '.join(kind.filterable_columns())}"
        )
    value = _typed(filter_.value, name, kind.column_type(name))
    if filter_.predicate == "=":
        return lambda row: _plain(row[name]) == value
    if filter_.predicate == "!=":
        return lambda row: _plain(row[name]) != value
    raise QueryError(f"Unsupported filter predicate {filter_.predicate} is given. Available predicates: =, !=.")


def _typed(text: str, name: str, type_: str) -> Any:
    base = type_.removesuffix(" | None")
    if base == "bool":
        return _boolean(name, text)
    if base in ("int", "float"):
        try:
            return int(text) if base == "int" else float(text)
        except ValueError:
            raise QueryError(f"Invalid filter {name}={text}: the column has numbers") from None
    return text.lower()


def _plain(value: Any) -> Any:
    """As a filter's value is written."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return str(value).lower()
    return value.lower() if isinstance(value, str) else value


def limit_of(text: str) -> int:
    """Raises: QueryError."""
    try:
        limit = int(text)
    except ValueError:
        raise QueryError(f"limit={text} is not a whole number") from None
    if limit > MAX_LIMIT:
        raise QueryError(f"Given limit {limit} exceeds the supported limit {MAX_LIMIT}. Use a lower limit.")
    if limit < 1:
        raise QueryError(f"limit={limit}: at least one row must be wanted")
    return limit


def _boolean(name: str, text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise QueryError(f"{name}={text} is neither true nor false") from None
