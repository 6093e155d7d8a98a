"""Find an actor by its name instead of passing its handle around.

Names live in a namespace. A detached actor outlives the job that made it, until somebody kills it.
"""

from __future__ import annotations

import shoal as ray


@ray.remote
class Blackboard:
    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def write(self, author: str, note: str) -> None:
        self.notes[author] = note

    def read(self) -> dict[str, str]:
        return self.notes


@ray.remote
def student(name: str) -> None:
    """Gets no handle; it knows the name."""
    blackboard = ray.get_actor("blackboard")
    ray.get(blackboard.write.remote(name, f"{name} was here"))


def main() -> None:
    ray.init(namespace="classroom")
    blackboard = Blackboard.options(name="blackboard").remote()
    ray.get([student.remote(name) for name in ("Ada", "Grace", "Edsger")])
    notes = ray.get(blackboard.read.remote())
    print("on the blackboard:", ", ".join(sorted(notes.values())))
    assert sorted(notes) == ["Ada", "Edsger", "Grace"]

    # Get or create: all of these are the same actor, whoever comes first.
    again = Blackboard.options(name="blackboard", get_if_exists=True).remote()
    assert ray.get(again.read.remote()) == notes

    # The same name in another namespace is another actor.
    archive = Blackboard.options(name="blackboard", namespace="archive", lifetime="detached").remote()
    assert ray.get(archive.read.remote()) == {}
    found = ray.get_actor("blackboard", namespace="archive")
    assert found == archive

    ray.kill(archive)
    try:
        ray.get_actor("nobody")
    except ValueError as error:
        print("no such name:", type(error).__name__)
    else:
        raise AssertionError("a name that nobody has must not be found")
    ray.shutdown()


if __name__ == "__main__":
    main()
