"""Errors keep what they know when they cross processes, and are caught by the user's own class."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import inspect
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from shoal import exceptions
from shoal._values.task_error import error_of_dependent
from shoal.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectReconstructionFailedError,
    ShoalError,
    TaskError,
    UnserializableException,
    WorkerCrashedError,
)
from shoal.util import deregister_serializer, register_serializer

NAMES_OF_RAY = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "AuthenticationError",
    "CrossLanguageError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRefStreamEndOfStreamError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RayActorError",
    "RayCgraphCapacityExceeded",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayDirectTransportError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StreamingGeneratorReplayInconsistentError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
]

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "ActorUnavailableError": ("its worker restarts", b"\x01\x02"),
    "CrossLanguageError": ("JAVA", "java.lang.Exception"),
    "ObjectReconstructionFailedError": ("ab12", "PUT"),
    "ShoalSystemError": ("broken", "a traceback"),
    "TaskTimeoutError": ("f", "ab12", 1.5, "running"),
    "TaskError": ("f", "Traceback (most recent call last):\nValueError: x", ValueError("x")),
}


def classes() -> list[type[Exception]]:
    found = {cls for _, cls in inspect.getmembers(exceptions, inspect.isclass) if issubclass(cls, Exception)}
    return sorted(found, key=lambda cls: cls.__name__)


def sample(cls: type[Exception]) -> Exception:
    for name in (base.__name__ for base in cls.__mro__):
        if name in ARGUMENTS:
            return cls(*ARGUMENTS[name])
    if "__init__" not in vars(cls):
        return cls("text")
    parameters = inspect.signature(cls).parameters.values()
    return cls(*("text" for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD))


def raised(cause: BaseException) -> TaskError:
    """As a worker makes it."""
    try:
        raise cause.with_traceback(None)
    except BaseException as error:
        return TaskError.from_exception("module.f", error, proctitle="shoal::f", pid=42, ip="10.0.0.7")


def across(error: ShoalError) -> Any:
    return pickle.loads(pickle.dumps(error))


# --- every class -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES_OF_RAY)
def test_has_the_class_under_rays_name(name: str) -> None:
    assert issubclass(getattr(exceptions, name), ShoalError)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_pickles_with_its_attributes(cls: type[Exception]) -> None:
    error = sample(cls)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert {k: repr(v) for k, v in vars(again).items()} == {k: repr(v) for k, v in vars(error).items()}


def test_keyword_arguments_survive_pickling() -> None:
    again = across(WorkerCrashedError("killed by SIGKILL", task_name="f", pid=7))
    assert (again.reason, again.task_name, again.pid) == ("killed by SIGKILL", "f", 7)


@pytest.mark.parametrize("cls", [cls for cls in classes() if getattr(cls, "remedy", "")], ids=lambda cls: cls.__name__)
def test_message_ends_with_what_to_do(cls: type[ShoalError]) -> None:
    assert str(sample(cls)).endswith(cls.remedy)


def test_bases_that_programs_rely_on() -> None:
    assert issubclass(GetTimeoutError, TimeoutError)
    assert issubclass(exceptions.ActorAlreadyExistsError, ValueError)
    assert issubclass(exceptions.ActorHandleNotFoundError, ValueError)
    assert issubclass(exceptions.ActorDiedError, exceptions.RayActorError)
    assert issubclass(exceptions.ActorUnavailableError, exceptions.RayActorError)
    assert issubclass(exceptions.OwnerDiedError, exceptions.ObjectLostError)
    assert issubclass(exceptions.ReferenceCountingAssertionError, AssertionError)
    assert issubclass(exceptions.RayChannelTimeoutError, TimeoutError)
    assert issubclass(exceptions.ActorClassInheritanceException, TypeError)


def test_worker_crash_names_the_reason() -> None:
    message = str(WorkerCrashedError("killed by SIGSEGV", task_name="f", pid=7))
    assert message.startswith(
        "The worker died unexpectedly while executing this task (task f, pid 7): killed by SIGSEGV."
    )


def test_actor_death_by_constructor() -> None:
    failed = raised(ValueError("no such file"))
    failed.actor_id = "ab"
    error = across(ActorDiedError(failed))
    assert error.actor_init_failed
    assert error.actor_id == "ab"
    assert isinstance(error.cause, TaskError)
    assert "raised in its creation task" in str(error)
    assert "ValueError: no such file" in str(error)


def test_actor_death_by_crash() -> None:
    error = ActorDiedError(
        actor_id="ab", class_name="Counter", name="c", pid=9, reason="exit code 3", never_started=True
    )
    assert not error.actor_init_failed
    for part in ("class_name: Counter", "actor_id: ab", "name: c", "pid: 9", "exit code 3", "never ran"):
        assert part in str(error)


def test_actor_unavailable_takes_binary_and_hex_ids() -> None:
    assert ActorUnavailableError("it restarts", b"\xab").actor_id == "ab"
    assert ActorUnavailableError("it restarts", "ab").actor_id == "ab"


def test_reconstruction_failure_explains_its_reason() -> None:
    assert "Return the value from a task" in str(ObjectReconstructionFailedError("ab", "PUT"))
    assert "UNKNOWN" in str(ObjectReconstructionFailedError("ab"))


# --- TaskError ---------------------------------------------------------------------------------------------


class TwoArguments(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a
        self.b = b


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    a: int
    b: int


class Stern(Exception):
    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            raise RuntimeError("no attributes for you")
        return super().__getattribute__(name)


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("Final is final")


class ShowsItself(Exception):
    def __str__(self) -> str:
        return "my own text"

    def __reduce__(self) -> tuple[Any, ...]:
        return ShowsItself, ()


class Base(BaseException):
    pass


class ArgsProperty(Exception):
    @property  # type: ignore[override]
    def args(self) -> tuple[Any, ...]:
        return ("computed",)


CAUSES: list[BaseException] = [
    ValueError("x", 2),
    KeyError("k"),
    FileNotFoundError(2, "No such file or directory", "f.txt"),
    UnicodeDecodeError("utf8", b"\xff", 0, 1, "invalid start byte"),
    ImportError("no module", name="m"),
    StopIteration(4),
    SystemExit(3),
    SyntaxError("bad", ("f.py", 1, 2, "text")),
    ExceptionGroup("several", [ValueError("v"), KeyError("k")]),
    Slotted(7),
    Frozen(1, 2),
    ShowsItself(),
    ArgsProperty(),
    Base("b"),
    GetTimeoutError("too slow"),
    ActorDiedError(actor_id="ab"),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
def test_is_caught_by_the_class_of_the_cause(cause: BaseException) -> None:
    with pytest.raises(type(cause)) as here:
        raise raised(cause).as_instanceof_cause()
    with pytest.raises(type(cause)) as there:
        raise across(raised(cause)).as_instanceof_cause()
    for caught in (here.value, there.value, across(here.value), copy.copy(here.value)):
        assert isinstance(caught, TaskError)
        assert isinstance(caught, type(cause))
        assert type(caught).__name__ == f"TaskError({type(cause).__name__})"
        assert caught.cause.__class__ is cause.__class__
        assert caught.args == cause.args or repr(caught.args) == repr(cause.args)
        assert str(caught) == str(here.value)


def _builtin_errors() -> list[Exception]:
    arguments: dict[str, tuple[Any, ...]] = {
        "ExceptionGroup": ("several", [ValueError("one")]),
        "UnicodeDecodeError": ("utf-8", b"x", 0, 1, "reason"),
        "UnicodeEncodeError": ("utf-8", "x", 0, 1, "reason"),
        "UnicodeTranslateError": ("x", 0, 1, "reason"),
    }
    classes = {cls for cls in vars(builtins).values() if isinstance(cls, type) and issubclass(cls, Exception)}
    return [cls(*arguments.get(cls.__name__, ("text",))) for cls in sorted(classes, key=lambda cls: cls.__name__)]


class _Derived(MemoryError):
    def __init__(self, size: int) -> None:
        self.size = size


@pytest.mark.parametrize("cause", [*_builtin_errors(), _Derived(3)], ids=lambda cause: type(cause).__name__)
def test_every_error_of_the_interpreter_is_caught_by_its_class(cause: Exception) -> None:
    error = pickle.loads(pickle.dumps(TaskError("f", "Traceback", cause))).as_instanceof_cause()
    assert isinstance(error, type(cause))
    assert repr(error.cause) == repr(cause)


def test_serializer_registered_for_an_exception() -> None:
    class Refused(OSError):
        def __init__(self, code: int) -> None:
            self.code = code

    register_serializer(Refused, serializer=lambda error: error.code, deserializer=Refused)
    try:
        error = pickle.loads(pickle.dumps(TaskError("f", "Traceback", Refused(7)))).as_instanceof_cause()
    finally:
        deregister_serializer(Refused)
    assert isinstance(error, Refused)
    assert error.cause.code == 7


def test_keeps_what_the_interpreter_stores_in_the_cause() -> None:
    missing: Any = across(raised(FileNotFoundError(2, "No such file", "f.txt"))).as_instanceof_cause()
    assert (missing.errno, missing.strerror, missing.filename) == (2, "No such file", "f.txt")
    group: Any = across(raised(ExceptionGroup("g", [ValueError("v")]))).as_instanceof_cause()
    assert group.message == "g"
    assert [type(e) for e in group.exceptions] == [ValueError]
    decoding: Any = raised(UnicodeDecodeError("utf8", b"\xff", 0, 1, "why")).as_instanceof_cause()
    assert (decoding.object, decoding.start, decoding.reason) == (b"\xff", 0, "why")


def test_has_the_attributes_of_the_cause() -> None:
    slotted: Any = across(raised(Slotted(7))).as_instanceof_cause()
    assert slotted.code == 7
    frozen: Any = across(raised(Frozen(1, 2))).as_instanceof_cause()
    assert (frozen.a, frozen.b) == (1, 2)
    with pytest.raises(AttributeError):
        _ = slotted.nothing_like_it


def test_exception_group_can_be_split() -> None:
    handled: list[BaseException] = []
    try:
        raise across(raised(ExceptionGroup("g", [ValueError("v"), ValueError("w")]))).as_instanceof_cause()
    except* ValueError as group:
        handled.extend(group.exceptions)
    assert [str(e) for e in handled] == ["v", "w"]


def test_plain_exception_needs_no_new_class() -> None:
    error = raised(Exception("x"))
    assert error.as_instanceof_cause() is error
    dual = raised(ValueError("x")).as_instanceof_cause()
    assert dual.as_instanceof_cause() is dual


@pytest.mark.parametrize("cause", [Final("x"), BaseExceptionGroup("g", [KeyboardInterrupt()])], ids=["final", "group"])
def test_degrades_to_task_error(cause: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    error = raised(cause)
    with caplog.at_level(logging.WARNING):
        assert error.as_instanceof_cause() is error
    assert "can't be subclassed" in caplog.text
    assert error.cause is cause


def test_exception_that_hides_everything_still_arrives() -> None:
    assert isinstance(across(raised(Stern("x"))), ShoalError)


def test_message_shows_where_and_the_remote_traceback() -> None:
    message = str(raised(ValueError("no luck")).as_instanceof_cause())
    assert message.startswith("shoal::f() (pid=42, ip=10.0.0.7)\n  File ")
    assert "raise cause.with_traceback" in message
    assert message.endswith("ValueError: no luck")


def test_message_names_the_actor() -> None:
    error = TaskError("A.m", "Traceback (most recent call last):\nE", ValueError(), actor_repr="A(1)", actor_id="ab")
    assert "actor_id=ab, repr=A(1))" in str(error)


def test_message_shows_chained_causes() -> None:
    try:
        try:
            raise ZeroDivisionError("inner")
        except ZeroDivisionError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as error:
        message = str(TaskError.from_exception("f", error))
    assert "ZeroDivisionError: inner" in message
    assert "direct cause" in message
    assert message.endswith("RuntimeError: outer")


def test_frames_of_shoal_itself_are_not_shown() -> None:
    """Neither around the user's code, nor where an error passed through ``get``, nor in the errors behind it."""
    namespace: dict[str, Any] = {}
    ours = str(Path(exceptions.__file__).parent / "somewhere.py")
    exec(compile("def through(call): return call()", ours, "exec"), namespace)

    def users() -> None:
        try:
            namespace["through"](lambda: 1 / 0)
        except ZeroDivisionError as error:
            raise RuntimeError("outer") from error

    try:
        namespace["through"](users)
    except RuntimeError as error:
        text = TaskError.from_exception("f", error).traceback_str
    assert "somewhere.py" not in text
    assert "in users" in text
    assert "in <lambda>" in text
    assert "ZeroDivisionError: division by zero" in text


def test_error_that_only_shoal_raised_shows_its_last_frame() -> None:
    namespace: dict[str, Any] = {}
    ours = str(Path(exceptions.__file__).parent / "somewhere.py")
    exec(compile("def inner(): raise ValueError('x')\ndef outer(): inner()", ours, "exec"), namespace)
    try:
        namespace["outer"]()
    except ValueError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        text = TaskError.from_exception("f", error).traceback_str
    assert ("in outer" in text, "in inner" in text) == (False, True)


def test_chain_of_causes_that_is_a_circle_has_an_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert "first" in TaskError.from_exception("f", first).traceback_str


def test_error_of_an_argument_names_the_task_that_needed_it() -> None:
    producer = raised(ValueError("no luck"))
    consumer = pickle.loads(error_of_dependent("consumer", pickle.dumps(producer)))
    last = pickle.loads(error_of_dependent("last", pickle.dumps(consumer))).as_instanceof_cause()
    assert isinstance(last, ValueError)
    assert str(last).startswith(
        "shoal::last()\n  At least one of the input arguments for this task could not be computed"
    )
    assert (
        str(last).index("shoal::last()") < str(last).index("shoal::consumer()") < str(last).index("shoal::f() (pid=42")
    )
    assert str(last).endswith("ValueError: no luck")


@pytest.mark.parametrize(
    "error", [WorkerCrashedError("killed by SIGKILL"), raised(ValueError("x" * 100_000))], ids=["system", "large"]
)
def test_errors_that_go_on_as_they_are(error: ShoalError) -> None:
    pickled = pickle.dumps(error)
    assert error_of_dependent("consumer", pickled) is pickled


def test_dual_instance_by_the_name_of_ray() -> None:
    assert isinstance(raised(ValueError("x")).make_dual_exception_instance(), ValueError)
    with pytest.raises(TypeError, match="Final is final"):
        raised(Final("x")).make_dual_exception_instance()


def test_error_through_several_tasks_keeps_the_first_cause() -> None:
    inner = raised(ValueError("first")).as_instanceof_cause()
    outer = across(raised(inner)).as_instanceof_cause()
    assert isinstance(outer, ValueError)
    assert type(outer.cause) is ValueError
    assert str(outer).count("shoal::f()") == 2


def test_cause_that_cannot_be_pickled_arrives_as_text() -> None:
    cause = ValueError("holds a lock")
    cause.lock = threading.Lock()  # type: ignore[attr-defined]
    error = across(raised(cause))
    assert type(error) is TaskError
    assert "ValueError isn't serializable" in str(error.cause)
    assert "holds a lock" in str(error)


def test_constructor_that_pickle_cannot_call_again() -> None:
    error = across(raised(TwoArguments(1, 2)))
    assert isinstance(error, UnserializableException)
    assert isinstance(error, TwoArguments)
    assert (error.a, error.b) == (1, 2)
    assert "TwoArguments: 1 and 2" in str(error)
    # Out of a further process the text remains.
    assert "TwoArguments: 1 and 2" in str(across(raised(error)))


def explode() -> None:
    raise RuntimeError("cannot be unpickled here")


class Unloadable(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


def test_exception_that_cannot_be_unpickled_arrives_as_text() -> None:
    error = across(raised(Unloadable("original words")))
    assert type(error) is UnserializableException
    assert "Unloadable: original words" in str(error)
    assert "Unloadable: original words" in str(across(error))
