"""The user's exceptions arrive as what they are, with the remote traceback."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from e2e.compat.target import IS_RAY, better_than_ray, exceptions, ray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def fail():
    @ray.remote(max_retries=0)
    def fail(make):
        raise make()

    return fail


@pytest.mark.parametrize(
    "error",
    [ValueError("a", 1), KeyError("k"), ZeroDivisionError("z"), AssertionError("no"), StopIteration(3), OSError("o")],
    ids=lambda e: type(e).__name__,
)
def test_caught_by_its_own_class(fail, error):
    kind, args = type(error), error.args
    with pytest.raises(kind) as caught:
        ray.get(fail.remote(lambda: kind(*args)))
    assert isinstance(caught.value, exceptions.RayTaskError)
    assert type(caught.value.cause) is kind
    assert caught.value.cause.args == args


def test_caught_by_the_class_of_ray(fail):
    with pytest.raises(exceptions.RayError):
        ray.get(fail.remote(lambda: ValueError("x")))
    with pytest.raises(exceptions.RayTaskError):
        ray.get(fail.remote(lambda: ValueError("x")))


def test_user_defined_class(fail):
    class MyError(Exception):
        def __init__(self, code):
            super().__init__(code)
            self.code = code

    with pytest.raises(MyError) as caught:
        ray.get(fail.remote(lambda: MyError(42)))
    assert caught.value.code == 42
    assert caught.value.cause.code == 42


def test_class_hierarchy(fail):
    class Base(Exception):
        pass

    class Derived(Base):
        pass

    with pytest.raises(Base):
        ray.get(fail.remote(lambda: Derived("d")))


def test_message_has_the_remote_traceback(fail):
    @ray.remote
    def outer():
        def deep():
            raise ValueError("from below")

        deep()

    with pytest.raises(ValueError, match="from below") as caught:
        ray.get(outer.remote())
    message = str(caught.value)
    assert "outer()" in message
    assert "pid=" in message
    assert "in deep" in message
    assert __file__ in message
    assert message.rstrip().endswith("ValueError: from below")


def test_traceback_of_an_actor(fail):
    @ray.remote
    class A:
        def m(self):
            raise ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        ray.get(A.remote().m.remote())
    assert "A.m()" in str(caught.value)
    assert "actor_id=" in str(caught.value)


def test_causes_of_the_cause():
    @ray.remote
    def f():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error

    with pytest.raises(RuntimeError, match="direct cause of the following"):
        ray.get(f.remote())


def test_error_through_nested_tasks():
    @ray.remote
    def inner():
        raise ValueError("from inside")

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    with pytest.raises(ValueError, match="from inside") as caught:
        ray.get(outer.remote())
    assert type(caught.value.cause) is ValueError
    assert "outer()" in str(caught.value)
    assert "inner()" in str(caught.value)


def test_error_through_arguments():
    @ray.remote
    def first():
        raise ValueError("upstream")

    @ray.remote
    def then(x):
        return x

    with pytest.raises(ValueError, match="upstream"):
        ray.get(then.remote(then.remote(first.remote())))


def test_error_can_be_caught_inside_a_task():
    @ray.remote
    def inner():
        raise KeyError("k")

    @ray.remote
    def outer():
        try:
            ray.get(inner.remote())
        except KeyError as error:
            return type(error.cause).__name__, error.cause.args

    assert ray.get(outer.remote()) == ("KeyError", ("k",))


def test_every_return_fails():
    @ray.remote(num_returns=3, max_retries=0)
    def f():
        raise ValueError("x")

    for ref in f.remote():
        with pytest.raises(ValueError, match="x"):
            ray.get(ref)


def test_same_error_can_be_raised_again_and_again(fail):
    ref = fail.remote(lambda: ValueError("again"))
    for _ in range(3):
        with pytest.raises(ValueError, match="again"):
            ray.get(ref)


def test_exception_group(fail):
    with pytest.raises(ExceptionGroup) as caught:
        ray.get(fail.remote(lambda: ExceptionGroup("several", [ValueError("v"), KeyError("k")])))
    assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError]
    handled = []
    try:
        ray.get(fail.remote(lambda: ExceptionGroup("several", [ValueError("v")])))
    except* ValueError as group:
        handled += group.exceptions
    assert len(handled) == 1


def test_exceptions_beside_exception(fail):
    class Base(BaseException):
        pass

    with pytest.raises(Base):
        ray.get(fail.remote(lambda: Base("b")))


def test_keyboard_interrupt_counts_as_cancelled(fail):
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(fail.remote(lambda: KeyboardInterrupt()))


def test_class_that_cannot_be_subclassed(fail):
    class Final(Exception):
        def __init_subclass__(cls):
            raise TypeError("Final is final")

    with pytest.raises(exceptions.RayTaskError) as caught:
        ray.get(fail.remote(lambda: Final("f")))
    assert type(caught.value.cause).__name__ == "Final"


def test_exception_that_cannot_be_pickled(fail):
    def make():
        import threading

        error = ValueError("holds a lock")
        error.lock = threading.Lock()
        return error

    with pytest.raises(exceptions.RayTaskError, match="holds a lock") as caught:
        ray.get(fail.remote(make))
    assert "isn't serializable" in str(caught.value.cause)


def test_exception_that_cannot_be_unpickled(fail):
    class TwoArguments(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    with pytest.raises(exceptions.UnserializableException, match="1 and 2") as caught:
        ray.get(fail.remote(lambda: TwoArguments(1, 2)))
    if not IS_RAY:
        assert isinstance(caught.value, TwoArguments)


@better_than_ray
def test_errno_of_an_os_error():
    @ray.remote
    def f():
        os.stat("/nonexistent/file")

    with pytest.raises(FileNotFoundError) as caught:
        ray.get(f.remote())
    assert (caught.value.errno, caught.value.filename) == (2, "/nonexistent/file")


def test_errors_can_be_pickled(fail):
    try:
        ray.get(fail.remote(lambda: KeyError("k")))
    except KeyError as error:
        again = pickle.loads(pickle.dumps(error)) if not IS_RAY else error
    assert isinstance(again, KeyError)
    assert isinstance(again, exceptions.RayTaskError)
    assert isinstance(pickle.loads(pickle.dumps(exceptions.GetTimeoutError("t"))), TimeoutError)


def test_error_of_a_module_that_is_missing():
    @ray.remote
    def f():
        import there_is_no_such_module  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        ray.get(f.remote())


def test_recursion_error():
    @ray.remote
    def f(n):
        def deeper(n):
            return deeper(n + 1)

        return deeper(n)

    with pytest.raises(RecursionError):
        ray.get(f.remote(0))


def test_warnings_and_logging_inside_tasks_are_harmless():
    @ray.remote
    def f():
        import logging
        import warnings

        logging.getLogger("x").warning("logged")
        warnings.warn("warned", stacklevel=1)
        return "done"

    assert ray.get(f.remote()) == "done"


def test_serializer_that_a_task_registers_for_its_exception():
    class Refused(OSError):
        def __init__(self, code):
            self.code = code

    @ray.remote
    def fails():
        ray.util.register_serializer(Refused, serializer=lambda error: error.code, deserializer=Refused)
        raise Refused(7)

    with pytest.raises(exceptions.RayTaskError) as caught:
        ray.get(fails.remote())
    assert isinstance(caught.value, Refused)
    assert caught.value.cause.code == 7


def test_memory_error_of_numpy():
    @ray.remote
    def too_big():
        return np.ones(10**15)

    with pytest.raises(MemoryError):
        ray.get(too_big.remote())
