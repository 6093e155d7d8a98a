"""Arguments, results and exceptions that cannot travel: the error names the thing, and the session goes on."""

from __future__ import annotations

import math
import socket
import threading

import numpy as np
import pytest
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions
from shoal.experimental import get_local_object_locations, get_object_locations
from shoal.job_config import JobConfig
from shoal.util import (
    collective,
    get_placement_group,
    kv,
    placement_group,
    placement_group_table,
    register_serializer,
    remove_placement_group,
)
from shoal.util.metrics import Counter, Histogram
from shoal.util.queue import Queue
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@pytest.fixture(scope="module", autouse=True)
def session():
    with shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False, _system_config={"infeasible_grace_s": 0.5}):
        yield


@pytest.fixture(autouse=True)
def still_works():
    yield

    @shoal.remote
    def f(x):
        return x

    @shoal.remote
    class A:
        def m(self, x):
            return x

    assert shoal.get([f.remote(1), A.remote().m.remote(2)], timeout=PATIENCE_S) == [1, 2]


@shoal.remote(max_retries=0)
def take(*args, **kwargs):
    return len(args) + len(kwargs)


@shoal.remote(num_cpus=0)
class Taker:
    def __init__(self, *args):
        self.args = args

    def take(self, *args):
        return len(args)

    def give(self, make):
        return make()


class RefusesPickling:
    def __reduce__(self):
        raise RuntimeError("I stay here")


class RefusesUnpickling:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("I do not arrive")


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [threading.Lock, socket.socket, RefusesPickling, lambda: (i for i in range(3))])
@pytest.mark.parametrize("where", ["argument", "keyword", "call", "constructor", "put", "nested"])
def test_unpicklable(make, where):
    thing = make()
    try:
        with pytest.raises((TypeError, RuntimeError)) as caught:
            if where == "argument":
                take.remote(thing)
            elif where == "keyword":
                take.remote(key=thing)
            elif where == "call":
                Taker.remote().take.remote(thing)
            elif where == "constructor":
                Taker.remote(thing)
            elif where == "put":
                shoal.put(thing)
            else:
                take.remote({"list": [1, (2, thing)]})
        text = f"{caught.value} {getattr(caught.value, '__notes__', '')}"
        assert "pickle" in text.lower() or "serializ" in text.lower() or "I stay here" in text
    finally:
        if isinstance(thing, socket.socket):
            thing.close()


def test_path_to_the_culprit():
    with pytest.raises(TypeError) as caught:
        shoal.put({"settings": [1, {"lock": threading.Lock()}]})
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "lock" in text
    assert "settings" in text


@pytest.mark.parametrize("where", ["argument", "call", "put", "nested"])
def test_refuses_unpickling(where):
    with pytest.raises((RuntimeError, exceptions.ShoalError), match="I do not arrive"):
        if where == "argument":
            shoal.get(take.remote(RefusesUnpickling()), timeout=PATIENCE_S)
        elif where == "call":
            shoal.get(Taker.remote().take.remote(RefusesUnpickling()), timeout=PATIENCE_S)
        elif where == "put":
            shoal.get(shoal.put(RefusesUnpickling()), timeout=PATIENCE_S)
        else:
            shoal.get(take.remote([{"x": RefusesUnpickling()}]), timeout=PATIENCE_S)


def test_references_to_what_cannot_be_used():
    """A failed task as an argument fails those that depend on it, with its own error; others go on."""

    @shoal.remote(max_retries=0)
    def fail():
        raise KeyError("the first")

    @shoal.remote(max_retries=0)
    def die():
        import os

        os._exit(1)

    failed, dead, fine = fail.remote(), die.remote(), shoal.put(1)
    with pytest.raises(KeyError, match="the first"):
        shoal.get(take.remote(fine, failed), timeout=PATIENCE_S)
    with pytest.raises(KeyError, match="the first"):
        shoal.get(take.remote(key=take.remote(failed)), timeout=PATIENCE_S)
    with pytest.raises(exceptions.WorkerCrashedError):
        shoal.get(take.remote(dead), timeout=PATIENCE_S)
    taker = Taker.remote()
    refs = [taker.take.remote(1), taker.take.remote(failed), taker.take.remote(dead), taker.take.remote(1, 2)]
    assert shoal.get([refs[0], refs[3]], timeout=PATIENCE_S) == [1, 2]
    with pytest.raises(KeyError):
        shoal.get(refs[1], timeout=PATIENCE_S)
    with pytest.raises(exceptions.WorkerCrashedError):
        shoal.get(refs[2], timeout=PATIENCE_S)
    # Inside a list it is only a reference.
    assert shoal.get(take.remote([failed, dead]), timeout=PATIENCE_S) == 1


def test_reference_to_an_unpicklable_result():
    @shoal.remote(max_retries=0)
    def lock():
        return threading.Lock()

    ref = lock.remote()
    with pytest.raises(TypeError):
        shoal.get(ref, timeout=PATIENCE_S)
    with pytest.raises(TypeError):
        shoal.get(take.remote(ref), timeout=PATIENCE_S)


# --- results -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [threading.Lock, RefusesPickling, lambda: (i for i in range(3))])
def test_unpicklable_result(make):
    with pytest.raises((TypeError, RuntimeError)) as caught:
        shoal.get(shoal.remote(max_retries=0)(lambda: [make()]).remote(), timeout=PATIENCE_S)
    assert isinstance(caught.value, exceptions.TaskError)
    taker = Taker.remote()
    with pytest.raises((TypeError, RuntimeError)):
        shoal.get(taker.give.remote(make), timeout=PATIENCE_S)
    assert shoal.get(taker.take.remote(1), timeout=PATIENCE_S) == 1


def test_one_of_several_results():
    @shoal.remote(num_returns=2, max_retries=0)
    def two():
        return 1, threading.Lock()

    for ref in two.remote():
        with pytest.raises(TypeError):
            shoal.get(ref, timeout=PATIENCE_S)


# --- exceptions ----------------------------------------------------------------------------------------------------


class HoldsALock(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class NeedsTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class RefusesRepr(Exception):
    def __repr__(self):
        raise ValueError("no repr")

    __str__ = __repr__


class Huge(Exception):
    pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HoldsALock(), "holds a lock"),
        (lambda: NeedsTwo("one", "two"), "one and two"),
        (lambda: RefusesRepr(), "RefusesRepr"),
        (lambda: Huge("x" * 3_000_000), "Huge"),
        (lambda: Huge(np.zeros(1_000_000)), "Huge"),
        (lambda: type("MadeUp", (ValueError,), {})("made up"), "made up"),
    ],
    ids=["unpicklable", "cannot be built again", "no repr", "large text", "large array", "class of the moment"],
)
@pytest.mark.parametrize("where", ["task", "call", "constructor"])
def test_exceptions_of_all_kinds(make, words, where):
    def fail():
        raise make()

    @shoal.remote
    class Fails:
        def __init__(self, now):
            if now:
                fail()

        def m(self):
            fail()

    with pytest.raises(exceptions.ShoalError) as caught:
        if where == "task":
            shoal.get(shoal.remote(max_retries=0)(fail).remote(), timeout=PATIENCE_S)
        elif where == "call":
            shoal.get(Fails.remote(False).m.remote(), timeout=PATIENCE_S)
        else:
            shoal.get(Fails.remote(True).m.remote(), timeout=PATIENCE_S)
    assert not isinstance(caught.value, exceptions.GetTimeoutError)
    assert words in str(caught.value)
    assert "fail" in str(caught.value)


def test_chain_of_causes_with_an_unpicklable_one():
    def fail():
        try:
            raise HoldsALock
        except HoldsALock as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        shoal.get(shoal.remote(max_retries=0)(fail).remote(), timeout=PATIENCE_S)
    assert "holds a lock" in str(caught.value)


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_cpus": 1000}, ["CPU", "1000"]),
        ({"num_gpus": 1}, ["GPU"]),
        ({"resources": {"unicorn": 1}}, ["unicorn"]),
        ({"memory": 1 << 60}, ["memory"]),
    ],
    ids=str,
)
def test_request_that_fits_nowhere(options, words):
    with pytest.raises(exceptions.TaskUnschedulableError) as task:
        shoal.get(take.options(**options).remote(), timeout=PATIENCE_S)
    with pytest.raises(exceptions.ActorUnschedulableError) as actor:
        shoal.get(Taker.options(**options).remote().take.remote(), timeout=PATIENCE_S)
    for word in words:
        assert word in str(task.value)
        assert word in str(actor.value)


def test_what_waits_is_not_what_cannot_be():
    """A request that only has to wait for others is not refused after the grace period."""

    @shoal.remote(num_cpus=2)
    class Holder:
        def ping(self):
            return 1

    holder = Holder.remote()
    shoal.get(holder.ping.remote(), timeout=PATIENCE_S)
    ref = take.remote()
    assert shoal.wait([ref], timeout=1.5)[0] == []
    shoal.kill(holder)
    assert shoal.get(ref, timeout=PATIENCE_S) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: shoal.get(1),
        lambda: shoal.get("text"),
        lambda: shoal.get([1, 2]),
        lambda: shoal.get(None),
        lambda: shoal.wait(1),
        lambda: shoal.wait([1]),
        lambda: shoal.wait([shoal.put(1)], num_returns=0),
        lambda: shoal.wait([shoal.put(1)], num_returns=2),
        lambda: shoal.wait([shoal.put(1)], timeout=-1),
        lambda: shoal.kill(1),
        lambda: shoal.get_actor(""),
        lambda: shoal.get_actor(None),
        lambda: shoal.put(shoal.put(1)),
        lambda: take(1),
        lambda: Taker(1),
    ],
)
def test_wrong_use(call):
    with pytest.raises((TypeError, ValueError), match=r"\w+ \w+"):
        call()


# --- arguments of the API itself ------------------------------------------------------------------------------------

GROUP = [{"CPU": 0.1}]
#: No text: half of a character.
HALF = "\ud800"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: placement_group(GROUP).wait("soon"), TypeError, "timeout_seconds must be a number of seconds"),
        (lambda: placement_group(GROUP).wait(math.nan), ValueError, "timeout_seconds .* not NaN"),
        (lambda: remove_placement_group("name"), TypeError, "a placement group is needed, not str"),
        (lambda: placement_group_table("name"), TypeError, "a placement group is needed, not str"),
        (lambda: get_placement_group(1), TypeError, "must be a str, not int"),
        (lambda: kv.put("k", b"", ttl_s="1"), TypeError, "ttl_s must be a number of seconds"),
        (lambda: kv.get("k", namespace=1), TypeError, "a namespace is a string, not int"),
        (lambda: kv.delete("k", expected_version=True), ValueError, "a version is a number"),
        (lambda: kv.watch("k", timeout_s="1"), TypeError, "timeout_s must be a number of seconds"),
        (lambda: Queue("one"), TypeError, "maxsize must be an int, not str"),
        (lambda: Queue().put(1, timeout="1"), TypeError, "timeout must be a number of seconds"),
        (lambda: get_object_locations([], timeout_ms="1"), TypeError, "timeout_ms must be a number of milliseconds"),
        (lambda: get_local_object_locations([1]), TypeError, "must be a list of ObjectRefs"),
        (lambda: PlacementGroupSchedulingStrategy("name"), TypeError, "a placement group is needed, not str"),
        (lambda: register_serializer(RefusesPickling, serializer=1, deserializer=int), TypeError, "must be a function"),
        (lambda: register_serializer("name", serializer=int, deserializer=int), TypeError, "registered for classes"),
        (lambda: collective.init_collective_group("2", 0), TypeError, "world_size and rank must be ints"),
        (lambda: collective.init_collective_group(1, 0, gloo_timeout="1"), TypeError, "a number of milliseconds"),
        # What is counted travels later, when nobody is there to be told.
        (lambda: Counter(1), TypeError, "The name of a metric must be a str, not int"),
        (lambda: Counter("n", description=1), TypeError, "The description of a metric must be a str, not int"),
        (lambda: Counter("n", description=HALF), UnicodeEncodeError, "must be valid Unicode"),
        (lambda: Counter("n", tag_keys=(HALF,)), UnicodeEncodeError, "must be valid Unicode"),
        (lambda: Counter("n", tag_keys=("k",)).inc(tags={"k": HALF}), UnicodeEncodeError, "must be valid Unicode"),
        (lambda: Counter("n").inc(math.nan), ValueError, "got NaN"),
        (lambda: Histogram("h", boundaries="x"), TypeError, "must be int or float"),
        (lambda: JobConfig(metadata=1), TypeError, "must be a dictionary of strings, not int"),
        (lambda: JobConfig(metadata={"a": 1}), TypeError, "must be strings by strings"),
        (lambda: JobConfig(metadata={"a": HALF}), UnicodeEncodeError, "must be valid Unicode"),
        (lambda: JobConfig(ray_namespace=1), TypeError, "must be None or a str, not int"),
        (lambda: JobConfig(ray_namespace=""), ValueError, "not a valid namespace"),
        (lambda: JobConfig(code_search_path=[1]), TypeError, "code search path is incorrect"),
    ],
)
def test_what_an_argument_must_be_is_said(call, error, says):
    with pytest.raises(error, match=says):
        call()
