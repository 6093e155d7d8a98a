"""The user's own exception on its way between processes, and what all errors of Shoal have in common.

An error crosses processes as its pickle, whatever arguments its constructor takes. The cause of a ``TaskError`` is
pickled by itself: what fails in the user's class must not take the rest of the error with it. ``get`` raises an
instance of a class made for the purpose, which is a ``TaskError`` and the user's class at once.

Public in ``shoal.exceptions``, beside the other errors.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import traceback
import types
from typing import Any, ClassVar

_log = logging.getLogger("shoal.exceptions")
#: Where users find the classes: tracebacks and pickles name it.
_PUBLIC = "shoal.exceptions"
#: Frames of files below it are not shown to users.
_SHOAL = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

INPUT_FAILED = "  At least one of the input arguments for this task could not be computed:"
#: A larger error is handed on as it is to the tasks that need what it stands for.
MAX_REPEATED_BYTES = 64 * 1024


class ShoalError(Exception):
    """Base of every error that Shoal itself raises."""

    __module__ = _PUBLIC

    #: What to do about it; ends the message.
    remedy: ClassVar[str] = ""

    def _message(self) -> str:
        return super().__str__()

    def __str__(self) -> str:
        return " ".join(part for part in (self._message(), self.remedy) if part)

    def __reduce__(self) -> tuple[Any, ...]:
        # Why not the inherited way: it calls the class again with ``args``, which lack the keyword arguments.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class TaskError(ShoalError):
    """A task or an actor method raised ``cause``; ``str()`` shows the traceback of the process it ran in.

    ``get`` raises ``as_instanceof_cause()``, so that ``except ValueError`` catches a remote ``ValueError``. Where an
    error passes through several tasks, ``cause`` is the first one's and ``traceback_str`` shows the way.
    """

    __module__ = _PUBLIC

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
    ) -> None:
        super().__init__(function_name, traceback_str, cause)
        self.function_name = function_name
        self.traceback_str = traceback_str
        self.cause: BaseException = cause.cause if isinstance(cause, TaskError) else cause
        self.proctitle = proctitle or f"shoal::{function_name}"
        #: 0: it has not run anywhere.
        self.pid = os.getpid() if pid is None else pid
        self.ip = "127.0.0.1" if ip is None else ip
        self.actor_repr = actor_repr
        #: Hex, None outside actors.
        self.actor_id = actor_id

    @classmethod
    def from_exception(cls, function_name: str, error: BaseException, **where: Any) -> TaskError:
        """Wraps ``error`` in the process that caught it; ``where`` are the constructor's further arguments."""
        return cls(function_name, _text_of(error), error, **where)

    def as_instanceof_cause(self) -> TaskError:
        """This error as an instance of the cause's class too, with the cause's attributes.

        Returns ``self`` where that cannot be: the class is final, or resists subclassing. Never raises.
        """
        if isinstance(self, type(self.cause)):
            return self
        try:
            return self.make_dual_exception_instance()
        except Exception as error:
            _log.warning(
                "User exception type %s in TaskError can't be subclassed! This exception is raised as TaskError only. "
                "You can use its `cause` to access the user exception. Failure in subclassing: %s",
                type(self.cause).__qualname__,
                error,
            )
            return self

    def make_dual_exception_instance(self) -> TaskError:
        """An instance of the cause's class and of TaskError. Raises: TypeError and more where that cannot be."""
        dual: TaskError = _instance_of_both(TaskError, self, self.cause)
        return dual

    def _message(self) -> str:
        actor = f", actor_id={self.actor_id}, repr={self.actor_repr}" if self.actor_repr else ""
        header = f"{self.proctitle}()" + (f" (pid={self.pid}, ip={self.ip}{actor})" if self.pid else "")
        lines = self.traceback_str.strip("\n").split("\n")
        shown = [header if line.startswith("Traceback ") else line for line in lines]
        return "\n".join(shown if header in shown else [header, *shown])

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "cause"}
        return _load_task_error, (_dump_cause(self), state)


def error_of_dependent(function_name: str, pickled: bytes) -> bytes:
    """The error of a task one of whose arguments is ``pickled``, an error: names both.

    An error that is none of the user's code, or very large, stays as it is: it tells enough, or goes to many.
    """
    if len(pickled) > MAX_REPEATED_BYTES:
        return pickled
    error = pickle.loads(pickled)
    if not isinstance(error, TaskError):
        return pickled
    text = f"{INPUT_FAILED}\n{_PUBLIC}.{type(error).__name__}: {error}"
    return pickle.dumps(TaskError(function_name, text, error.cause, pid=0, ip=""), 5)


def _text_of(error: BaseException) -> str:
    """The traceback, with those of the errors behind it, and without the frames of Shoal itself."""
    whole = traceback.TracebackException(type(error), error, error.__traceback__)
    unseen, seen = [whole], set()
    while unseen:
        part = unseen.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        users = [frame for frame in part.stack if not frame.filename.startswith(_SHOAL)]
        part.stack[:] = users or part.stack[-1:]
        behind = [part.__cause__, part.__context__, *(part.exceptions or () if hasattr(part, "exceptions") else ())]
        unseen += [each for each in behind if each is not None]
    return "".join(whole.format())


def _dump_cause(error: TaskError) -> bytes:
    """The cause, pickled by itself: what fails in it must not take the rest of the error with it."""
    from shoal._values import serialization  # deferred: it imports what the errors must be importable without

    cause = error.cause
    cls = type(cause)
    plain = (
        cls.__reduce__ is BaseException.__reduce__
        and cls.__reduce_ex__ is object.__reduce_ex__
        and not serialization.has_serializer(cls)
    )
    try:
        data = serialization.dumps((*cause.__reduce__()[:2], cause.__dict__) if plain else (cause,))
    except Exception as failure:
        substitute = ShoalError(
            f"Exception {cls.__module__}.{cls.__qualname__} isn't serializable: {failure}.\n"
            f"Original exception details:\n{error.traceback_str}"
        )
        data = serialization.dumps((substitute,))
    return data


def _load_task_error(pickled_cause: bytes, state: dict[str, Any]) -> ShoalError:
    def rebuild(cause: BaseException) -> TaskError:
        error = TaskError.__new__(TaskError, state["function_name"], state["traceback_str"], cause)
        error.__dict__.update(state, cause=cause)
        return error

    def unserializable(cause: BaseException | None = None) -> UnserializableException:
        text = f"{_PUBLIC}.{rebuild(cause or ShoalError())}"
        return UnserializableException(text, cause)

    try:
        loaded = pickle.loads(pickled_cause)
    except Exception:
        return unserializable()
    if len(loaded) == 1:
        return rebuild(loaded[0])
    cls, args, attributes = loaded
    try:
        cause = cls(*args)
    except Exception:
        # Its constructor wants other arguments than it passed on to Exception: pickle cannot call it again.
        try:
            return unserializable(_restore(cls, args, attributes)).as_instanceof_cause()
        except Exception:
            return unserializable()
    cause.__dict__.update(attributes)
    return rebuild(cause)


def _instance_of_both(wrapper: type[Any], error: ShoalError, cause: BaseException) -> Any:
    """An instance of a new class that inherits from ``wrapper`` and from the cause's class.

    Its constructor is bypassed (a user's may want anything, do anything): the state that the interpreter keeps
    outside ``__dict__`` (``errno``, ``exceptions``) is copied, all else is looked up in the cause.
    """
    cause_class = type(cause)

    class Dual(wrapper, cause_class):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return getattr(cause, name)

        def __dir__(self) -> list[str]:
            return [*super().__dir__(), *vars(cause)]

        def __str__(self) -> str:
            return str(error)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return _reload, (error,)

    Dual.__name__ = Dual.__qualname__ = f"{wrapper.__name__}({cause_class.__name__})"
    Dual.__module__ = _PUBLIC
    builtin = next(base for base in cause_class.__mro__ if base.__module__ == "builtins")
    # The one whose layout instances have. Another's __new__ refuses (MemoryError's, which adds nothing to Exception).
    solid: type = Dual
    while solid.__module__ != "builtins":
        solid = solid.__base__  # type: ignore[assignment]
    dual: Any = solid.__new__(Dual, *cause.args)
    for base in builtin.__mro__[: builtin.__mro__.index(BaseException)]:
        for name, member in vars(base).items():
            if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
                with contextlib.suppress(AttributeError, TypeError):  # read-only, or not set in the cause
                    setattr(dual, name, getattr(cause, name))
    vars(BaseException)["args"].__set__(dual, cause.args)  # plain assignment could meet a property of the user's
    dual.__dict__.update(error.__dict__)
    return dual


def _reload(error: Any) -> Any:
    return error.as_instanceof_cause()


class UnserializableException(ShoalError):
    """The exception that a task raised could not be unpickled here; the message shows it as text.

    If only its constructor resisted, this is an instance of its class all the same, ``cause`` is the original,
    and both ``except`` clauses work.
    """

    __module__ = _PUBLIC

    remedy = (
        "\nTo have it unpickled, give the exception class a __reduce__, "
        "or register a serializer for it with shoal.util.register_serializer."
    )

    def __init__(self, original_stack_trace: str, cause: BaseException | None = None) -> None:
        super().__init__(original_stack_trace)
        self.original_stack_trace = original_stack_trace
        if cause is not None:
            self.cause = cause

    def as_instanceof_cause(self) -> UnserializableException:
        cause = self.__dict__.get("cause")
        if cause is None:
            return self
        dual: UnserializableException = _instance_of_both(UnserializableException, self, cause)
        return dual

    def __reduce__(self) -> tuple[Any, ...]:
        # The cause stays behind: it is known to resist pickling.
        return UnserializableException, (self.original_stack_trace,)

    def _message(self) -> str:
        return f"Failed to deserialize exception.\nOriginal exception:\n{self.original_stack_trace}"
