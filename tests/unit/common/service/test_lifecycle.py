from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from shoal_common.service.lifecycle import EXIT_FAILED, EXIT_OK, run_service


class RecordingApp:
    def __init__(self, name: str, story: list[str], fails_in: str = "") -> None:
        self.name = name
        self.story = story
        self.fails_in = fails_in
        self.address = f"{name}:1"

    async def start(self) -> None:
        await self._do("start")

    async def stop(self) -> None:
        await self._do("stop")

    async def _do(self, what: str) -> None:
        self.story.append(f"{what} {self.name}")
        if self.fails_in == what:
            raise OSError(f"{self.name} cannot {what}")


class SignallingApp(RecordingApp):
    """Raises the signal once it has started, as if an operator did."""

    number = signal.SIGTERM

    async def start(self) -> None:
        await super().start()
        os.kill(os.getpid(), self.number)


class InterruptedApp(SignallingApp):
    number = signal.SIGINT


class FailingApp(RecordingApp):
    async def failed(self) -> str:
        return "it has lost the lead"


class WaitingApp(SignallingApp):
    """Its start waits for somebody who does not come."""

    async def start(self) -> None:
        await super().start()
        try:
            await asyncio.Event().wait()
        finally:
            self.story.append(f"gave up {self.name}")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured
    structlog.reset_defaults()


@pytest.mark.parametrize("last", [SignallingApp, InterruptedApp])
async def test_apps_stop_in_the_reverse_order_of_their_start(last: type[SignallingApp]) -> None:
    story: list[str] = []
    assert await run_service(RecordingApp("a", story), last("b", story)) == EXIT_OK
    assert story == ["start a", "start b", "stop b", "stop a"]


async def test_when_one_does_not_start_those_before_it_are_stopped() -> None:
    story: list[str] = []
    apps = [RecordingApp("a", story), RecordingApp("b", story, "start"), RecordingApp("c", story)]
    assert await run_service(*apps) == EXIT_FAILED
    assert story == ["start a", "start b", "stop a"]


async def test_an_app_that_cannot_go_on_ends_the_service(logs: list[Any]) -> None:
    story: list[str] = []
    assert await run_service(RecordingApp("a", story), FailingApp("b", story)) == EXIT_FAILED
    assert story == ["start a", "start b", "stop b", "stop a"]
    assert [line["reason"] for line in logs if line["event"] == "service_failed"] == ["it has lost the lead"]


async def test_a_start_that_waits_can_be_interrupted() -> None:
    story: list[str] = []
    assert await run_service(RecordingApp("a", story), WaitingApp("b", story)) == EXIT_OK
    assert story == ["start a", "start b", "gave up b", "stop a"]


async def test_a_failing_stop_does_not_keep_the_others_from_stopping() -> None:
    story: list[str] = []
    assert await run_service(RecordingApp("a", story), SignallingApp("b", story, "stop")) == EXIT_FAILED
    assert story == ["start a", "start b", "stop b", "stop a"]


async def test_signals_mean_again_what_they_meant_before() -> None:
    await run_service(SignallingApp("a", []))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
