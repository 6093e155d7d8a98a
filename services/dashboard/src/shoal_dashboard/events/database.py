"""The tables of the task store, in DuckDB: attempts that have ended, those alive, counts, and what has been taken in.

What has ended is ``fresh`` first, then ``leaving``, while it becomes a segment of the archive, and ``ended`` when it is
there.

DuckDB and not SQLite or Parquet files of our own: docs/events.md has the measurements. Rows come in as columns of
numpy: its own ``executemany`` takes 600 a second.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np

from shoal_common.events.node_events import ClusterEvent
from shoal_common.events.task_events import Failure, FunctionTally, TaskState
from shoal_dashboard.events.archive import VERSION, Segment
from shoal_dashboard.events.attempts import Attempt, Key
from shoal_dashboard.events.counters import Life

#: That DuckDB may use; what does not fit goes to files beside the database.
MEMORY_LIMIT = "128MB"
THREADS = 2
#: Events of the cluster that are told.
KEEP_EVENTS = 10_000
#: When so many rows of ``alive`` have been replaced, the table is written anew: what is deleted takes room until then.
REWRITE_AFTER = 500_000

_TIMES = [f"at_{state.name.lower()}" for state in TaskState]
_COLUMNS: dict[str, str] = {
    "task_id": "BLOB",
    "attempt": "INTEGER",
    "state": "UTINYINT",
    "kind": "UTINYINT",
    "function": "VARCHAR",
    "name": "VARCHAR",
    "job_id": "BLOB",
    "parent": "BLOB",
    "actor_id": "BLOB",
    "owner": "BLOB",
    "node_id": "BLOB",
    "worker_id": "BLOB",
    "pid": "INTEGER",
    "error_type": "VARCHAR",
    "error_class": "VARCHAR",
    "error": "VARCHAR",
    "submitted_ms": "BIGINT",
    **dict.fromkeys(_TIMES, "BIGINT"),
    "resources": "VARCHAR",
}
COLUMNS = ", ".join(_COLUMNS)
_ATTEMPTS = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
_SCHEMA = f"""
CREATE TABLE fresh ({_ATTEMPTS});
CREATE TABLE leaving ({_ATTEMPTS});
CREATE TABLE ended ({_ATTEMPTS});
CREATE TABLE alive ({_ATTEMPTS});
CREATE TABLE tallies (node_id BLOB, incarnation BIGINT, tally BLOB, job_id BLOB, function VARCHAR, kind UTINYINT);
CREATE TABLE happened (event_id VARCHAR, at_ms BIGINT, event BLOB);
CREATE TABLE seen (node_id BLOB, incarnation BIGINT, upto BIGINT);
CREATE TABLE totals (unnamed BIGINT, lost BIGINT, version INTEGER, floor_ms BIGINT);
INSERT INTO totals VALUES (0, 0, {VERSION}, 0);
CREATE VIEW attempts AS SELECT * FROM ended UNION ALL SELECT * FROM leaving UNION ALL SELECT * FROM fresh
    UNION ALL SELECT * FROM alive;
"""
_encode = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(ClusterEvent).decode
_encode_json = msgspec.json.Encoder().encode
_decode_resources = msgspec.json.Decoder(dict[str, float]).decode
_decode_tally = msgspec.msgpack.Decoder(FunctionTally).decode


#: Of a query, in its order or by their names.
Parameters = Sequence[object] | Mapping[str, object]


class Database:
    """One writer at a time, any number of readers; all methods block. A file of another version is replaced."""

    def __init__(self, path: Path) -> None:
        """Raises: duckdb.Error when it cannot be opened: the file is another process's, or broken."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = self._open()
        try:
            (version,) = self._connection.execute("SELECT version FROM totals").fetchall()[0]
        except duckdb.CatalogException:
            version = None
        #: There was no file, or one that is of no use.
        self.is_new = version != VERSION
        if version not in (None, VERSION):
            self._connection.close()
            path.unlink()
            self._connection = self._open()
        if version != VERSION:
            self._connection.execute(_SCHEMA)
        self._readers = threading.local()
        self._replaced = 0
        #: As the table has it: of many nodes few have told something since the last write.
        self._seen = self.seen()
        #: What ended before is to be looked for in the archive; milliseconds since 1970.
        self.floor_ms: int = self.read("SELECT floor_ms FROM totals")[0][0]

    def _reader(self) -> duckdb.DuckDBPyConnection:
        """This thread's."""
        reader: duckdb.DuckDBPyConnection | None = getattr(self._readers, "connection", None)
        if reader is None:
            reader = self._readers.connection = self._connection.cursor()
        return reader

    def _open(self) -> duckdb.DuckDBPyConnection:
        limits: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "threads": THREADS, "preserve_insertion_order": False}
        return duckdb.connect(str(self._path), config=limits)

    def write(
        self,
        ended: Sequence[Attempt],
        changed: Sequence[Key],
        alive: Sequence[Attempt],
        tallies: Iterable[tuple[Life, FunctionTally]],
        seen: dict[bytes, tuple[int, int]],
        unnamed: int,
        lost: int,
        happened: Sequence[ClusterEvent] = (),
    ) -> None:
        """All of it, or nothing. ``changed``: those that are not alive any more, or as ``alive`` says."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            if changed:
                task_ids, attempts = zip(*changed, strict=True)
                connection.register("gone", {"task_id": _bytes(task_ids), "attempt": np.array(attempts, np.int32)})
                connection.execute(
                    "DELETE FROM alive USING gone WHERE alive.task_id = gone.task_id AND alive.attempt = gone.attempt"
                )
                connection.unregister("gone")
            self._insert("alive", alive)
            self._insert("fresh", ended)
            if happened:
                rows = {
                    "event_id": np.array([_event_id(event) for event in happened], dtype=object),
                    "at_ms": np.array([event.at_ms for event in happened], dtype=np.int64),
                    "event": _bytes([_encode(event) for event in happened]),
                }
                connection.register("new_events", rows)
                connection.execute(
                    "INSERT INTO happened SELECT DISTINCT * FROM new_events ANTI JOIN happened USING (event_id)"
                )
                connection.unregister("new_events")
            for (node_id, incarnation), tally in {
                (life, tally.job_id, tally.function, tally.kind): (life, tally) for life, tally in tallies
            }.values():
                key = [node_id, incarnation, tally.job_id, tally.function, int(tally.kind)]
                connection.execute(
                    "DELETE FROM tallies WHERE node_id = ? AND incarnation = ? AND job_id = ? AND function = ? "
                    "AND kind = ?",
                    key,
                )
                connection.execute(
                    "INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?)", [*key[:2], _encode(tally), *key[2:]]
                )
            self._write_seen(seen)
            connection.execute("UPDATE totals SET unnamed = ?, lost = ?", [unnamed, lost])
            self._replaced += len(changed)
            if self._replaced >= REWRITE_AFTER:
                self._replaced = 0
                connection.execute("CREATE TABLE rewritten AS SELECT * FROM alive")
                connection.execute("DROP TABLE alive")
                connection.execute("ALTER TABLE rewritten RENAME TO alive")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._seen = seen

    def fresh(self) -> int:
        """How many are not in the archive."""
        count: int = self.read("SELECT (SELECT count(*) FROM fresh) + (SELECT count(*) FROM leaving)")[0][0]
        return count

    def leave(self, path: Path) -> Segment | None:
        """Those that are to be a segment, which is written there; None = there are none. They are the same again until
        ``left``."""
        if not self.read("SELECT count(*) FROM leaving")[0][0]:
            self._move("fresh", "leaving")
        ended_at = "greatest(at_finished, at_failed)"
        rows, first_ms, last_ms, first, last = self.read(
            f"SELECT count(*), min({ended_at}), max({ended_at}), min(task_id), max(task_id) FROM leaving"
        )[0]
        if not rows:
            return None
        self._connection.execute(f"COPY (SELECT * FROM leaving ORDER BY submitted_ms) TO '{path}' (FORMAT parquet)")
        mark = zlib.crc32(bytes(first) + bytes(last))
        return Segment(first_ms, last_ms, rows, f"{mark:08x}")

    def left(self) -> None:
        """The segment is stored."""
        self._move("leaving", "ended")

    def restore(self, path: Path) -> None:
        """A segment of the archive."""
        self._connection.execute(f"INSERT INTO ended SELECT {COLUMNS} FROM read_parquet('{path}')")

    def read_segments(
        self, paths: Sequence[Path], before_ms: int, condition: str, values: Sequence[Any], order: str, limit: int
    ) -> tuple[list[tuple[Any, ...]], int, int]:
        """Of what ended before, in these segments: the first rows that meet the condition, how many do, and how many
        there are. From any thread."""
        names = ", ".join(f"'{path}'" for path in paths)
        older = f"FROM read_parquet([{names}]) WHERE greatest(at_finished, at_failed) < ?"
        rows = self.read(
            f"SELECT {COLUMNS} {older} AND {condition} ORDER BY {order} LIMIT {limit}", [before_ms, *values]
        )
        total, recorded = self.read(f"SELECT count(*) FILTER ({condition}), count(*) {older}", [*values, before_ms])[0]
        return rows, total, recorded

    def raise_floor(self, floor_ms: int) -> None:
        """What the archive has of what ended before is left to it."""
        if floor_ms > self.floor_ms:
            self._connection.execute("UPDATE totals SET floor_ms = ?", [floor_ms])
            self._connection.execute("DELETE FROM ended WHERE greatest(at_finished, at_failed) < ?", [floor_ms])
            self.floor_ms = floor_ms

    def prune(self, before_ms: int, keep: int) -> None:
        """Forget what ended before, and the oldest beyond so many; also what has not come into the archive."""
        ended_at = "greatest(at_finished, at_failed)"
        both = f"(SELECT {ended_at} AS last_ms FROM ended UNION ALL SELECT {ended_at} FROM fresh)"
        beyond = self.read(f"SELECT last_ms FROM {both} ORDER BY last_ms DESC LIMIT 1 OFFSET ?", [keep])
        if beyond:
            before_ms = max(before_ms, beyond[0][0] + 1)
        self._connection.execute("DELETE FROM happened WHERE at_ms < ?", [before_ms])
        self._connection.execute(f"DELETE FROM fresh WHERE {ended_at} < ?", [before_ms])
        self.raise_floor(before_ms)

    def read(self, query: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """From any thread. Raises: duckdb.Error."""
        rows: list[tuple[Any, ...]] = self._reader().execute(query, parameters).fetchall()
        return rows

    def read_columns(self, query: str, parameters: Parameters = ()) -> dict[str, Any]:
        """As arrays of numpy, by name. From any thread. Raises: duckdb.Error."""
        columns: dict[str, Any] = self._reader().execute(query, parameters).fetchnumpy()
        return columns

    def happened(self) -> list[tuple[str, ClusterEvent]]:
        """With their ids, the newest first."""
        rows = self.read("SELECT event_id, event FROM happened ORDER BY at_ms DESC, event_id LIMIT ?", [KEEP_EVENTS])
        return [(event_id, _decode_event(event)) for event_id, event in rows]

    def alive(self) -> list[Attempt]:
        return [attempt_of(row) for row in self.read(f"SELECT {COLUMNS} FROM alive")]

    def tallies(self) -> list[tuple[Life, FunctionTally]]:
        rows = self.read("SELECT node_id, incarnation, tally FROM tallies")
        return [((node_id, incarnation), _decode_tally(tally)) for node_id, incarnation, tally in rows]

    def seen(self) -> dict[bytes, tuple[int, int]]:
        return {node_id: (incarnation, upto) for node_id, incarnation, upto in self.read("SELECT * FROM seen")}

    def totals(self) -> tuple[int, int]:
        """Unnamed, lost."""
        unnamed, lost = self.read("SELECT unnamed, lost FROM totals")[0]
        return unnamed, lost

    def close(self) -> None:
        self._connection.close()

    def _move(self, source: str, target: str) -> None:
        self._connection.execute("BEGIN")
        try:
            self._connection.execute(f"INSERT INTO {target} SELECT * FROM {source}")
            self._connection.execute(f"DELETE FROM {source}")
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def _write_seen(self, seen: dict[bytes, tuple[int, int]]) -> None:
        for node_id in self._seen.keys() - seen.keys():
            self._connection.execute("DELETE FROM seen WHERE node_id = ?", [node_id])
        changed = [node_id for node_id, told in seen.items() if self._seen.get(node_id) != told]
        if not changed:
            return
        rows = {
            "node_id": _bytes(changed),
            "incarnation": np.array([seen[node_id][0] for node_id in changed], dtype=np.int64),
            "upto": np.array([seen[node_id][1] for node_id in changed], dtype=np.int64),
        }
        self._connection.register("told", rows)
        self._connection.execute(
            "UPDATE seen SET incarnation = told.incarnation, upto = told.upto FROM told "
            "WHERE seen.node_id = told.node_id"
        )
        self._connection.execute("INSERT INTO seen SELECT * FROM told ANTI JOIN seen USING (node_id)")
        self._connection.unregister("told")

    def _insert(self, table: str, attempts: Sequence[Attempt]) -> None:
        if not attempts:
            return
        failures = [each.failure for each in attempts]
        rows: dict[str, Any] = {
            "task_id": _bytes([each.task_id for each in attempts]),
            "attempt": np.array([each.attempt for each in attempts], dtype=np.int32),
            "state": np.array([each.state for each in attempts], dtype=np.uint8),
            "kind": np.array([each.kind for each in attempts], dtype=np.uint8),
            "function": np.array([each.function for each in attempts], dtype=object),
            "name": np.array([each.name for each in attempts], dtype=object),
            **{
                name: _bytes([getattr(each, name) for each in attempts])
                for name in ("job_id", "parent", "actor_id", "owner", "node_id", "worker_id")
            },
            "pid": np.array([each.pid for each in attempts], dtype=np.int32),
            "error_type": np.array([each.type if each else "" for each in failures], dtype=object),
            "error_class": np.array([each.error_class if each else "" for each in failures], dtype=object),
            "error": np.array([each.text if each else "" for each in failures], dtype=object),
            "submitted_ms": np.array([each.submitted_ms for each in attempts], dtype=np.int64),
            **{
                name: np.array([each.times[state] for each in attempts], dtype=np.int64)
                for state, name in enumerate(_TIMES)
            },
            "resources": np.array([_encode_json(each.resources).decode() for each in attempts], dtype=object),
        }
        self._connection.register("new_rows", rows)
        self._connection.execute(f"INSERT INTO {table} SELECT {COLUMNS} FROM new_rows")
        self._connection.unregister("new_rows")


def _bytes(values: Sequence[bytes]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def attempt_of(row: Sequence[Any]) -> Attempt:
    """Of ``COLUMNS``."""
    *first, error_type, error_class, error, submitted_ms = row[:17]
    (task_id, attempt, state, kind, function, name, job_id, parent, actor_id, owner, node_id, worker_id, pid) = first
    failure = Failure(error_type, error_class, error) if error_type else None
    return Attempt(
        bytes(task_id),
        attempt,
        state,
        kind,
        function,
        name,
        bytes(job_id),
        bytes(parent),
        bytes(actor_id),
        bytes(owner),
        bytes(node_id),
        bytes(worker_id),
        pid,
        failure,
        submitted_ms,
        list(row[17 : 17 + len(_TIMES)]),
        _decode_resources(row[17 + len(_TIMES)]),
    )


def _event_id(event: ClusterEvent) -> str:
    """The same for the same event: whoever begins to listen is told again how things are."""
    return hashlib.blake2b(_encode(event), digest_size=12).hexdigest()
