"""What tasks and actors print is found by their ids, on whichever node it was."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from support.processes import eventually

import shoal
from shoal import cli


@pytest.fixture
def printed(cluster: None, capsys: pytest.CaptureFixture[str]) -> Any:
    """Waits until ``shoal logs`` with these arguments prints so many lines, and returns them."""
    address = f"--address={shoal.get_runtime_context().gcs_address}"

    def printed(count: int, *arguments: str) -> list[str]:
        def lines() -> list[str] | None:
            capsys.readouterr()
            code = cli.main(["logs", address, *arguments])
            found = capsys.readouterr().out.splitlines()
            return found if code == 0 and len(found) >= count else None

        return eventually(lines, f"{count} lines of {arguments}")

    return printed


@shoal.remote
def say(text: str) -> str:
    print(text)
    print("wrong:", text, file=sys.stderr)
    return shoal.get_runtime_context().get_task_id()


def test_each_task_has_the_lines_it_printed(printed: Any) -> None:
    one, other = shoal.get([say.remote("one"), say.remote("other")])
    assert printed(1, "--task", one) == ["one"]
    assert printed(1, "--task", other, "--err") == ["wrong: other"]
    (line,) = map(json.loads, printed(1, "--task", one, "--json"))
    assert line["line"] == "one" and line["name"] == "say" and line["attempt"] == 0
    context = shoal.get_runtime_context()
    assert (line["task_id"], line["job_id"], line["node_id"]) == (one, context.get_job_id(), context.get_node_id())
    assert printed(1, f"worker-{line['worker_id']}.out")


def test_calls_of_one_actor_at_the_same_time_keep_their_lines_apart(printed: Any) -> None:
    @shoal.remote(num_cpus=0)
    class Speaker:
        def __init__(self) -> None:
            self.both = asyncio.Barrier(2)
            print("made")

        async def speak(self, who: str) -> str:
            for number in range(3):
                await self.both.wait()
                print(who, number)
            return shoal.get_runtime_context().get_task_id()

    speaker = Speaker.remote()
    a, b = shoal.get([speaker.speak.remote("a"), speaker.speak.remote("b")])
    assert printed(3, "--task", a) == ["a 0", "a 1", "a 2"]
    assert printed(3, b) == printed(3, "--task", b) == ["b 0", "b 1", "b 2"]
    of_actor = printed(7, "--actor", speaker._actor_id.hex())
    assert of_actor[0] == "made" and len(of_actor) == 7
    assert printed(7, speaker._actor_id.hex()) == of_actor
    assert printed(2, "--actor", speaker._actor_id.hex(), "--tail", "2") == of_actor[-2:]


def test_files_are_listed_and_nothing_else_is_read(
    cluster: None, printed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shoal.get(say.remote("something"))
    listed = "\n".join(printed(3))
    assert "head.log" in listed and "worker-" in listed
    address = f"--address={shoal.get_runtime_context().gcs_address}"
    for wrong in ("../sockets", "/etc/passwd", "head.log/../../x"):
        assert cli.main(["logs", address, wrong]) == 1
        assert "no name of a log file" in capsys.readouterr().err
    assert cli.main(["logs", address, "--task", "00" * 20]) == 1
    assert "no node has anything of task" in capsys.readouterr().err
    assert cli.main(["logs", address, "--task", "zz"]) == 2
