"""The template from which workers are forked is killed: workers start all the same."""

from __future__ import annotations

import os
import signal

import pytest
from support.processes import all_gone, head_of, running_template_of

import shoal


@pytest.fixture(autouse=True)
def session(no_cluster):
    shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)


@shoal.remote(num_cpus=0)
class Where:
    def pids(self):
        return os.getpid(), os.getppid()


def test_workers_start_the_plain_way():
    template = running_template_of(os.getpid())
    # Stopped first: it cannot answer, and nothing tells the raylet before the kill.
    os.kill(template, signal.SIGSTOP)
    actors = [Where.remote() for _ in range(2)]
    os.kill(template, signal.SIGKILL)
    actors += [Where.remote() for _ in range(2)]
    places = shoal.get([actor.pids.remote() for actor in actors], timeout=60)
    assert len({pid for pid, _ in places}) == 4
    all_gone([template])


def test_template_is_started_again():
    first = running_template_of(os.getpid())
    os.kill(first, signal.SIGKILL)
    all_gone([first])
    assert running_template_of(os.getpid()) != first


def test_tasks_are_run_again():
    @shoal.remote
    def f(i):
        return i

    assert shoal.get([f.remote(i) for i in range(10)]) == list(range(10))
    refs = [f.remote(i) for i in range(100)]
    os.kill(running_template_of(os.getpid()), signal.SIGKILL)
    refs += [f.remote(i) for i in range(100, 200)]
    assert shoal.get(refs, timeout=60) == list(range(200))


def test_what_it_has_forked_lives_on():
    actors = [Where.remote() for _ in range(4)]
    before = shoal.get([actor.pids.remote() for actor in actors], timeout=60)
    template = running_template_of(os.getpid())
    os.kill(template, signal.SIGKILL)
    all_gone([template])
    assert shoal.get([actor.pids.remote() for actor in actors], timeout=60) == before
    assert {parent for _, parent in before} == {head_of(os.getpid())}


def test_head_stays():
    head = head_of(os.getpid())
    os.kill(running_template_of(os.getpid()), signal.SIGKILL)
    shoal.get(Where.remote().pids.remote(), timeout=60)
    assert head_of(os.getpid()) == head
