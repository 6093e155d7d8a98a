"""``inspect_serializability``: what in a value keeps it from being sent to a task."""

from __future__ import annotations

from typing import Any, TextIO

from shoal._values.serialization import _children, _picklable


class FailureTuple:
    """A part that cannot be pickled."""

    def __init__(self, obj: Any, path: tuple[str, ...], parent: Any) -> None:
        self.obj = obj
        #: Names from the inspected value down to the part.
        self.path = path
        #: What holds the part; None for the inspected value itself.
        self.parent = parent

    @property
    def name(self) -> str:
        return self.path[-1]

    def __repr__(self) -> str:
        path = " -> ".join(self.path)
        return f"FailTuple({self.name} [path={path}, obj={self.obj}, parent={self.parent}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Whether a value can be pickled, and if not, the innermost parts at fault, down to ``depth`` levels.

    ``name`` is what the report calls the value; the report goes to ``print_file`` (None = standard output).
    """
    title = f"Checking serializability of {base_obj}"
    rule = "=" * min(len(title), 80)
    print(rule, title, rule, sep="\n", file=print_file)
    inspection = _Inspection(print_file)
    name = name or getattr(base_obj, "__name__", None) or type(base_obj).__name__
    if inspection.passes(base_obj, (name,), None, depth):
        print(f"{name} can be serialized.", file=print_file)
        return True, set()
    print(rule, "These cannot be serialized:", *inspection.failures, sep="\n    ", file=print_file)
    print("Create them inside the task or actor, or register a serializer for their class.", file=print_file)
    return False, inspection.failures


class _Inspection:
    def __init__(self, print_file: TextIO | None) -> None:
        self._print_file = print_file
        self._seen: set[int] = set()
        self.failures: set[FailureTuple] = set()

    def passes(self, part: Any, path: tuple[str, ...], parent: Any, depth: int) -> bool:
        if _picklable(part):
            return True
        if id(part) in self._seen:
            return False
        self._seen.add(id(part))
        print(f"{'    ' * (len(path) - 1)}{path[-1]}: {type(part).__name__} fails", file=self._print_file)
        before = len(self.failures)
        if depth > 0:
            for step, child in _children(part):
                self.passes(child, (*path, _name(step)), part, depth - 1)
        if len(self.failures) == before:
            self.failures.add(FailureTuple(part, path, parent))
        return False


def _name(step: str) -> str:
    """``lock`` for each of ``.lock``, ``['lock']`` and ``-> global 'lock'``; ``[0]`` as it is."""
    quoted = step.split("'")
    return quoted[1] if len(quoted) == 3 else step.removeprefix(".")
