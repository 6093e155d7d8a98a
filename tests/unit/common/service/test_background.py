from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from shoal_common.service.background import Background


async def test_what_runs_is_counted_and_waited_for() -> None:
    background, door, done = Background(), asyncio.Event(), []

    async def work(number: int) -> None:
        await door.wait()
        done.append(number)

    for number in range(3):
        background.spawn(work(number))
    assert len(background) == 3
    door.set()
    await background.wait()
    assert (len(background), done) == (0, [0, 1, 2])
    await background.wait()


async def test_stop_ends_also_what_is_begun_meanwhile() -> None:
    background, ended = Background(), []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)
            if name == "first":
                background.spawn(work("second"))

    background.spawn(work("first"))
    await asyncio.sleep(0)
    await background.stop()
    assert len(background) == 0
    assert ended[0] == "first"


async def test_a_defect_is_logged_and_harms_nobody_else() -> None:
    background, done = Background(), []

    async def fail() -> None:
        raise RuntimeError("a defect")

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(True)

    with capture_logs() as logs:
        background.spawn(fail())
        background.spawn(work())
        await background.wait()
        await asyncio.sleep(0)
    assert [line["event"] for line in logs] == ["background_task_failed"]
    assert done
