"""Generators that are dropped, cancelled, outlive their callers, or yield more than fits: beyond what Ray does."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import numpy as np
import pytest
from support.actors import Gate, Record
from support.processes import PATIENCE_S, eventually

import shoal
from shoal import exceptions

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def session():
    with_room = {"num_cpus": 2, "object_store_memory": 80 * MIB}
    context = shoal.init(logging_level="ERROR", log_to_driver=False, **with_room)
    yield context
    shoal.shutdown()


@shoal.remote
def endless(log: Path):
    """Writes down how far it has come, and that it was closed."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            log.write_text(str(number))
    finally:
        log.with_suffix(".closed").touch()


def spilled(session) -> bool:
    return any(names for _, _, names in os.walk(Path(session["session_dir"]) / "spill"))


# -- more than fits -----------------------------------------------------------------------------------------


def test_a_task_streams_more_than_the_store_holds(session):
    @shoal.remote(_generator_backpressure_num_objects=16)
    def arrays(count):
        for number in range(count):
            yield np.full(MIB, number % 251, dtype=np.uint8)

    total = 0
    for number, ref in enumerate(arrays.remote(120)):
        array = shoal.get(ref, timeout=PATIENCE_S)
        assert array[0] == array[-1] == number % 251
        total += len(array)
        del array, ref
    assert total == 120 * MIB
    assert not spilled(session), "what has been read is freed"


def test_a_caller_that_does_not_read_gets_all_of_it():
    @shoal.remote
    def arrays(count):
        for number in range(count):
            yield np.full(4 * MIB, number, dtype=np.uint8)

    gen = arrays.remote(25)
    shoal.get(gen.completed(), timeout=PATIENCE_S)
    assert [int(shoal.get(ref)[-1]) for ref in gen] == list(range(25))


# -- nobody reads any more ----------------------------------------------------------------------------------


def test_a_generator_that_is_dropped_half_read_is_closed(tmp_path):
    gen = endless.remote(tmp_path / "log")
    assert shoal.get(next(gen)) == 0
    del gen
    eventually((tmp_path / "log.closed").exists, "its task is closed", PATIENCE_S)


def test_one_that_waits_for_its_reader_too(tmp_path):
    gen = endless.options(_generator_backpressure_num_objects=2).remote(tmp_path / "log")
    for _ in range(3):
        next(gen)
    del gen
    eventually((tmp_path / "log.closed").exists, "its task is closed", PATIENCE_S)


@pytest.mark.parametrize("options", [{"max_concurrency": 1}, {"max_concurrency": 2}])
def test_methods_of_actors_are_closed_and_the_actor_goes_on(tmp_path, options):
    @shoal.remote(**options)
    class Maker:
        def endless(self, log):
            try:
                while True:
                    yield log.exists()
            finally:
                log.touch()

        def answer(self):
            return 42

    maker = Maker.remote()
    gen = maker.endless.remote(tmp_path / "closed")
    assert shoal.get(next(gen)) is False
    del gen
    eventually((tmp_path / "closed").exists, "the generator is closed", PATIENCE_S)
    assert shoal.get(maker.answer.remote(), timeout=PATIENCE_S) == 42


def test_async_generators_are_closed(tmp_path):
    @shoal.remote
    class Maker:
        async def waits(self, path):
            import asyncio

            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                path.touch()

    maker = Maker.remote()
    gen = maker.waits.remote(tmp_path / "closed")
    assert shoal.get(next(gen)) == 1
    del gen
    eventually((tmp_path / "closed").exists, "the generator is closed", PATIENCE_S)


def test_what_nobody_has_read_runs_to_its_end(tmp_path):
    @shoal.remote(_generator_backpressure_num_objects=1)
    def work(path):
        yield from range(3)
        path.touch()

    work.remote(tmp_path / "unread")
    eventually((tmp_path / "unread").exists, "it runs to its end", PATIENCE_S)
    gen = work.remote(tmp_path / "completed")
    next(gen)
    done = gen.completed()
    del gen
    assert shoal.get(done, timeout=PATIENCE_S) is None
    assert (tmp_path / "completed").exists()


def test_items_that_are_dropped_unread_leave_nothing():
    @shoal.remote
    def arrays(gate):
        for number in range(5):
            yield np.full(MIB, number)
        shoal.get(gate.pass_through.remote())

    gate = Gate.remote()
    gen = arrays.remote(gate)
    next(gen)
    shoal.wait([gen])
    before = len(shoal._current.current().table.entries)
    del gen
    gc.collect()
    table = shoal._current.current().table
    eventually(lambda: shoal.put(None) and len(table.entries) < before, "its items are freed", PATIENCE_S)
    shoal.get(gate.open.remote())
    del gate
    eventually(lambda: shoal.available_resources()["CPU"] == 2, "its CPU is free", PATIENCE_S)


# -- cancelled, late ----------------------------------------------------------------------------------------


def test_a_cancelled_generator_ends_with_that_error(tmp_path):
    gen = endless.remote(tmp_path / "log")
    assert shoal.get(next(gen)) == 0
    shoal.cancel(gen)
    *_, last = gen
    with pytest.raises(exceptions.TaskCancelledError):
        shoal.get(last)
    with pytest.raises(exceptions.TaskCancelledError):
        shoal.get(gen.completed())
    assert (tmp_path / "log.closed").exists()


def test_one_that_has_not_begun_never_begins():
    @shoal.remote(resources={"nowhere": 1})
    def never():
        yield 1

    gen = never.remote()
    shoal.cancel(gen)
    with pytest.raises(exceptions.TaskCancelledError):
        shoal.get(next(gen), timeout=PATIENCE_S)
    assert list(gen) == []


def test_one_that_takes_too_long_ends_with_that_error():
    @shoal.remote
    def slow():
        yield 1
        time.sleep(1000)

    gen = slow.options(timeout_s=2).remote()
    *_, last = gen
    with pytest.raises(exceptions.TaskTimeoutError):
        shoal.get(last)


# -- its caller ends ----------------------------------------------------------------------------------------


def test_a_generator_of_an_actor_is_closed_when_its_caller_ends(tmp_path):
    @shoal.remote
    class Maker:
        def endless(self, log):
            try:
                while True:
                    yield 1
                    time.sleep(0.001)
            finally:
                log.touch()

        def answer(self):
            return 42

    @shoal.remote(max_retries=0)
    def caller(maker, log):
        next(maker.endless.remote(log))
        os._exit(1)

    maker = Maker.remote()
    with pytest.raises(exceptions.WorkerCrashedError):
        shoal.get(caller.remote(maker, tmp_path / "closed"), timeout=PATIENCE_S)
    eventually((tmp_path / "closed").exists, "the generator is closed", PATIENCE_S)
    assert shoal.get(maker.answer.remote(), timeout=PATIENCE_S) == 42


# -- what cannot be -----------------------------------------------------------------------------------------


def test_durable_actors_have_no_generators():
    @shoal.remote(durable=True)
    class Maker:
        def make(self):
            yield 1

    with pytest.raises(ValueError, match="Return a list"):
        Maker.remote().make.remote()


def test_a_repetition_that_yields_less_is_an_error(tmp_path):
    record = Record.remote()

    @shoal.remote(max_retries=1)
    def moody(record, read):
        shoal.get(record.note.remote("run"))
        if len(shoal.get(record.notes.remote())) > 1:
            return
        yield 1
        while not read.exists():
            time.sleep(0.01)
        os._exit(1)

    gen = moody.remote(record, tmp_path / "read")
    assert shoal.get(next(gen)) == 1
    (tmp_path / "read").touch()
    with pytest.raises(exceptions.StreamingGeneratorReplayInconsistentError, match="yielded 0 items"):
        shoal.get(next(gen), timeout=PATIENCE_S)
    assert list(gen) == []


def test_a_generator_of_an_earlier_session_says_so(session):
    @shoal.remote
    def make():
        yield 1

    gen = make.remote()
    shoal.get(gen.completed())
    shoal.shutdown()
    with pytest.raises(exceptions.ShoalSystemError, match="has not been started"):
        next(gen)
    shoal.init(num_cpus=1, logging_level="ERROR", log_to_driver=False)
    next(gen)  # its value is gone
    with pytest.raises(ValueError, match="belongs to a session that was shut down"):
        next(gen)
