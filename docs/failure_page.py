"""Writes docs/failure-model.md out of the crash matrix, tests/chaos/matrix/table.py."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.matrix.table import TABLE, Ends, Fault, Impossible, Moment, Outcome, Row, Sees, Victim

_HEAD = """# What a program sees when something fails

<!-- Written by docs/generate.py out of tests/chaos/matrix/table.py (`make docs`); changes belong there. -->

One process, or its machine, fails at one moment. Every cell that is possible is a test: `make chaos` kills, stops and
cuts real processes of a whole deployment (two GCS, two schedulers, two objectstores, etcd, NATS, MinIO, three nodes,
each on a machine of its own), and looks that nothing is left of the job afterwards: no process, object, reserved
resource, key in etcd, subscription of NATS or blob.

- **SIGKILL**, **SIGTERM**: the process ends, and is started again a second later. **SIGSTOP**: it is stopped for ten
  seconds. **cut off**: no packet reaches its machine or leaves it for ten seconds, and nobody is told. Both last longer
  than the silence after which a node counts as dead.
- **result**: the right one, of everything. Otherwise work that may be repeated (`max_retries`, `max_restarts` with
  `max_task_retries`) gives the first, and work that may not gives the second. *or*: whichever came first.
- Of scheduler and objectstore one replica fails; of the raylets the one where the work is, which is not the driver's. A
  driver that is cut off is one outside, which came in by a gateway.
"""


def page() -> str:
    parts = [_HEAD]
    for moment in Moment:
        parts += [
            f"## {moment[0].upper()}{moment[1:]}\n",
            _table({victim: rows[moment] for victim, rows in TABLE.items()}),
        ]
    return "\n".join(parts)


def _table(rows: dict[Victim, Row]) -> str:
    lines = [f"| | {' | '.join(Fault)} |", "|---" * (len(Fault) + 1) + "|"]
    lines += [f"| {victim} | {' | '.join(_cells(row))} |" for victim, row in rows.items()]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> Iterator[str]:
    before: Outcome | None = None
    for outcome in row:
        # What is said once is enough.
        yield "″" if outcome == before and isinstance(outcome, Impossible) else _text(outcome)
        before = outcome


def _text(outcome: Outcome) -> str:
    match outcome:
        case Ends():
            return "its job ends"
        case Impossible(why):
            return f"– ({why})"
        case Sees(again, once):
            return _any(again) if again == once else f"{_any(again)}; {_any(once)}"


def _any(allowed: tuple[str, ...]) -> str:
    names = (words.split()[0] for words in allowed)
    return " or ".join(name if name == "result" else f"`{name}`" for name in names)
