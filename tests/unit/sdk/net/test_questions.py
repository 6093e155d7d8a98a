"""Questions to raylets, without raylets: the answers come from here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from shoal._net.questions import Questions
from shoal._net.reactor import Reactor
from shoal_common.channel.frames import FlushLogs, FunctionData, FunctionGet, LogsFlushed, Message


class Raylets:
    """``on_send`` is called with each question, under the lock, as it goes out."""

    def __init__(self) -> None:
        self.home = SimpleNamespace(closed=False)
        self.asked: list[tuple[bytes, Any]] = []
        self.on_send: Callable[[Any], None] = lambda _: None

    def send(self, node_id: bytes, message: Message) -> None:
        self.asked.append((node_id, message))
        self.on_send(message)


@pytest.fixture
def raylets() -> Raylets:
    return Raylets()


@pytest.fixture
def questions(raylets: Raylets) -> Iterator[Questions]:
    reactor = Reactor()
    yield Questions(reactor, raylets, threading.RLock())  # type: ignore[arg-type]
    reactor.abandon()


def test_every_node_is_asked_and_all_answers_are_there(raylets: Raylets, questions: Questions) -> None:
    raylets.on_send = lambda question: questions.on_answer(LogsFlushed(question.request))
    answers = questions.ask([b"a", b"b"], FlushLogs, timeout=60)
    assert [node_id for node_id, _ in raylets.asked] == [b"a", b"b"]
    assert sorted(answer.request for answer in answers) == sorted(question.request for _, question in raylets.asked)


def test_after_the_time_those_that_came_are_there_and_later_ones_are_dropped(
    raylets: Raylets, questions: Questions
) -> None:
    raylets.on_send = lambda question: questions.on_answer(LogsFlushed(1)) if question.request == 1 else None
    assert questions.ask([b"a", b"b"], FlushLogs, timeout=0) == [LogsFlushed(1)]
    questions.on_answer(LogsFlushed(2))
    raylets.on_send = lambda question: questions.on_answer(FunctionData(question.request, b"code"))
    (answer,) = questions.ask([b"a"], lambda number: FunctionGet(number, b"f"), timeout=60)
    assert answer.data == b"code"


def test_a_raylet_that_is_gone_is_not_waited_for(raylets: Raylets, questions: Questions) -> None:
    raylets.home.closed = True
    assert questions.ask([b"a"], FlushLogs, timeout=60) == []


def test_who_waits_learns_that_the_raylet_has_gone(raylets: Raylets, questions: Questions) -> None:
    raylets.on_send = lambda _: threading.Timer(0, questions.give_up).start()
    assert questions.ask([b"a"], FlushLogs, timeout=60) == []
