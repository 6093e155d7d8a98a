"""What ``shoal.explain`` returns."""

from __future__ import annotations

from dataclasses import dataclass

from shoal._core.waits import FAILED, READY, Question, Reports, following


@dataclass(frozen=True)
class Explanation:
    """What an object, a task or a placement group waits for. ``str()`` says it in words, one line for each thing in the
    chain.

    ``state`` is one of "ready", "failed", "waiting for its arguments", "waiting for a worker", "waiting for its actor",
    "queued behind others", "running", "waiting in get", "without its owner", "unknown". Of a placement group it is one
    of "pending", "prepared", "created", "rescheduling", "removed", "unknown".
    """

    #: Hex; empty for a task in whose way another one is.
    object_id: str
    #: Function, or class and method, of the task; empty for what ``put`` has made.
    name: str
    state: str
    #: What is known besides, for humans; may be empty.
    detail: str = ""
    #: Hex, of the node where the task is; empty = nowhere yet.
    node_id: str = ""
    #: Of the process that has the task; 0 = none has, or not known.
    pid: int = 0
    #: How long it has been in that state, in seconds; None = not known.
    for_s: float | None = None
    #: What it waits for in its turn.
    waits_for: tuple[Explanation, ...] = ()
    #: Hex; empty for everything else.
    placement_group_id: str = ""

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> list[str]:
        what = f"ObjectRef({self.object_id})" if self.object_id else "task"
        if self.placement_group_id:
            what = f"PlacementGroup({self.placement_group_id})"
        name = f" of {self.name}" if self.name and self.object_id else f" {self.name}" if self.name else ""
        where = f" on node {self.node_id}" if self.node_id else ""
        where += f", pid {self.pid}" if self.pid else ""
        since = f" for {self.for_s:.1f} s" if self.for_s is not None else ""
        detail = f": {self.detail}" if self.detail else ""
        lines = [f"{'  ' * depth}{what}{name} is {self.state}{where}{since}{detail}"]
        for each in self.waits_for:
            lines += each._lines(depth + 1)
        return lines


def explanation(reports: Reports, question: Question, above: tuple[Question, ...] = ()) -> Explanation:
    """Of a walk's reports, from ``question`` on."""
    report = reports[question]
    state, detail, pid, for_s = report.state, report.detail, report.pid, report.for_s
    node_id = report.at.node_id.hex() if report.at is not None else ""
    name = report.name
    if question in above:
        return Explanation(question.object_id.hex(), name, state, "a cycle: see above", node_id, pid)
    above = (*above, question)
    children = following(question, report)
    if question.object_id and report.at is not None and state not in (READY, FAILED):
        # Who was sent the task knows more than the owner.
        task = Question(report.at.worker_id, task_id=report.task_id)
        at = reports.get(task)
        if at is not None and at.name:
            state, detail, pid, for_s, name = at.state, at.detail, at.pid, at.for_s, at.name
            if task in above:
                return Explanation(question.object_id.hex(), name, state, "a cycle: see above", node_id, pid)
            above = (*above, task)
            children = following(task, at)
        elif at is not None and at.detail:
            detail = at.detail
    waits_for = tuple(explanation(reports, each, above) for each in children if each in reports)
    duration = for_s if for_s >= 0 else None
    return Explanation(question.object_id.hex(), name, state, detail, node_id, pid, duration, waits_for)
