"""Graphs of calls that are described first and run later: ``f.bind(x)`` instead of ``f.remote(x)``, then ``execute()``.

A node holds what it was bound with, other nodes among it. ``execute`` runs each node once, those it needs first, as the
ordinary tasks and actor calls that ``remote`` would have made; between them go references, so nothing waits here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, cast

from shoal._not_implemented import refuse

if TYPE_CHECKING:
    from shoal._api.compiled.compiled_dag import CompiledDAG

#: What a node became in one run, by node.
_Results = dict["DAGNode", Any]

_numbers = itertools.count()


class Compiler(Protocol):
    """``compile_graph``, which knows the nodes; so they do not know it."""

    def __call__(
        self,
        output: DAGNode,
        *,
        submit_timeout: float | None,
        buffer_size_bytes: int | None,
        enable_asyncio: bool,
        max_inflight_executions: int | None,
        max_buffered_results: int | None,
    ) -> CompiledDAG: ...


_compiler: Compiler | None = None


def register_compiler(compiler: Compiler) -> None:
    """It makes a compiled graph of the one that ends at a node."""
    global _compiler
    _compiler = compiler


class DAGNode:
    """One step of a graph."""

    def __init__(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any] | None = None
    ) -> None:
        self._bound_args = tuple(args)
        self._bound_kwargs = dict(kwargs)
        self._bound_options = dict(options or {})
        #: Nodes are numbered as they are made.
        self._number = next(_numbers)
        #: Nodes that this one was bound to. A compiled graph runs them all, or refuses.
        self._followers: list[DAGNode] = []
        for node in self._needs():
            node._followers.append(self)

    def get_args(self) -> tuple[Any, ...]:
        return self._bound_args

    def get_kwargs(self) -> dict[str, Any]:
        return dict(self._bound_kwargs)

    def get_options(self) -> dict[str, Any]:
        return dict(self._bound_options)

    def execute(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the graph that ends here: returns at once the ref (of a class node: the handle, of a ``MultiOutputNode``
        the list of them). The arguments are what its ``InputNode`` stands for; a value for each run.

        Raises: TypeError for arguments without an ``InputNode``, AssertionError for two of them, and what ``remote``
        raises.
        """
        order = self._order()
        inputs = [node for node in order if isinstance(node, InputNode)]
        if len(inputs) > 1:
            raise AssertionError("Each DAG should only have one unique InputNode.")
        if (args or kwargs) and not inputs:
            raise TypeError("execute() was given arguments, but the graph has no InputNode that stands for them")
        results: _Results = {node: node._input(args, kwargs) for node in inputs}
        for node in order:
            if node not in results:
                filled_args = [_filled(value, results) for value in node._bound_args]
                filled_kwargs = {name: _filled(value, results) for name, value in node._bound_kwargs.items()}
                results[node] = node._run(filled_args, filled_kwargs, results)
        return results[self]

    def experimental_compile(
        self,
        _submit_timeout: float | None = None,
        _buffer_size_bytes: int | None = None,
        enable_asyncio: bool = False,
        _max_inflight_executions: int | None = None,
        _max_buffered_results: int | None = None,
        _overlap_gpu_communication: bool | None = None,
        _default_communicator: Any = "create",
    ) -> CompiledDAG:
        """Have the actors of this graph wait for its values in shared memory, so that an execution makes no calls. They
        go on serving ordinary calls.

        Of the arguments None stands for what ``DAGContext`` says: ``_submit_timeout``: seconds that ``execute`` waits
        for room (-1 = for ever); ``_buffer_size_bytes``: of each message at first, larger ones make themselves room;
        ``_max_inflight_executions``: whose results have not been read; ``_max_buffered_results``: read, and not asked
        for. ``enable_asyncio``: it is run by ``execute_async``, not by ``execute``.

        Raises: ValueError, AssertionError, NotImplementedError for what cannot be compiled, with the reason;
        ActorDiedError, ActorUnavailableError.
        """
        refuse("_overlap_gpu_communication", _overlap_gpu_communication, (None, False), "leave it out")
        refuse("_default_communicator", _default_communicator, ("create", None), "values go through shared memory")
        assert _compiler is not None
        return _compiler(
            self,
            submit_timeout=_submit_timeout,
            buffer_size_bytes=_buffer_size_bytes,
            enable_asyncio=enable_asyncio,
            max_inflight_executions=_max_inflight_executions,
            max_buffered_results=_max_buffered_results,
        )

    def _needs(self) -> Iterator[DAGNode]:
        """What has to run before."""
        for value in (*self._bound_args, *self._bound_kwargs.values()):
            yield from nodes_in(value)

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        """``args`` and ``kwargs``: what it was bound with, nodes replaced by their results."""
        raise NotImplementedError

    def _order(self) -> list[DAGNode]:
        """All nodes of the graph, each after those it needs. Without recursion: a chain may have thousands."""
        order: dict[DAGNode, None] = {}
        stack: list[tuple[DAGNode, Iterator[DAGNode]]] = [(self, self._needs())]
        while stack:
            node, needs = stack[-1]
            following = next((each for each in needs if each not in order), None)
            if following is not None:
                stack.append((following, following._needs()))
            else:
                order[node] = None
                stack.pop()
        return list(order)

    def __getattr__(self, name: str) -> Any:
        if name == "bind":
            raise AttributeError(f".bind() cannot be used again on {type(self)}")
        if name == "remote":
            raise AttributeError(
                f".remote() cannot be used on {type(self)}. To execute the task graph for this node, use .execute()."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} stands for a result that is not there yet and cannot be sent. bind() finds nodes among the "
            "arguments and in lists, tuples, sets and dictionaries; hand the result of execute() to anything else."
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._described()})"

    def _described(self) -> str:
        return ", ".join(
            [*map(repr, self._bound_args), *(f"{name}={value!r}" for name, value in self._bound_kwargs.items())]
        )


class FunctionNode(DAGNode):
    """A task: what ``f.bind(...)`` makes."""

    def __init__(self, remote: Callable[..., Any], name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._remote = remote
        self._name = name

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        return self._remote(*args, **kwargs)

    def _described(self) -> str:
        return self._name


class ClassNode(DAGNode):
    """An actor, made anew in each run: what ``A.bind(...)`` makes. Its methods are bound by ``node.method.bind(...)``
    and run in the order in which they were bound.

    Raises: ValueError for an input among the arguments, which is not there when the actor is made.
    """

    def __init__(self, actor_class: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__(args, kwargs)
        self._actor_class = actor_class
        self._name = name
        self._last_call: ClassMethodNode | None = None
        if any(isinstance(node, InputNode | InputAttributeNode) for node in self._order()):
            raise ValueError(
                "InputNode handles user dynamic input the the DAG, and cannot be used as args, kwargs, or "
                "other_args_to_resolve in ClassNode constructor because it is not available at class construction or "
                "binding time."
            )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_actor_class", "_last_call", "bind", "remote"):
            return super().__getattr__(name)
        getattr(self._actor_class, name)  # raises where the class has no such method
        return _UnboundMethod(self, name, {})

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        return self._actor_class.remote(*args, **kwargs)

    def _described(self) -> str:
        return self._name


class _UnboundMethod:
    """``node.method``, to be bound."""

    def __init__(self, node: ClassNode, name: str, options: dict[str, Any]) -> None:
        self._node = node
        self._name = name
        self._options = options

    def options(self, **options: Any) -> Self:
        return type(self)(self._node, self._name, {**self._options, **options})

    def bind(self, /, *args: Any, **kwargs: Any) -> ClassMethodNode:
        node = self._node
        node._last_call = ClassMethodNode(node, self._name, args, kwargs, self._options, after=node._last_call)
        return node._last_call

    def remote(self, /, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise AttributeError(
            ".remote() cannot be used on ClassMethodNodes. Use .bind() instead to express an symbolic actor call."
        )


class ClassMethodNode(DAGNode):
    """A call of an actor: of one that the graph makes, or of a living one, by its handle."""

    def __init__(
        self,
        of: Any,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        *,
        after: ClassMethodNode | None = None,
    ) -> None:
        """``of``: the ``ClassNode``, or the method of a handle. ``after``: the call that goes to the actor before."""
        self._of = of
        self._method = method
        self._after = after
        super().__init__(args, kwargs, options)

    def get_method_name(self) -> str:
        return self._method

    def _actor_handle(self) -> Any:
        """Of a living actor; None where the graph makes one."""
        return None if isinstance(self._of, ClassNode) else self._of._handle

    def _obstacle(self) -> str:
        """Why this call of a living actor cannot be part of a compiled graph; empty where it can."""
        return cast(str, self._of._obstacle())

    def _needs(self) -> Iterator[DAGNode]:
        if isinstance(self._of, ClassNode):
            yield self._of
        if self._after is not None:
            yield self._after
        yield from super()._needs()

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        if isinstance(self._of, ClassNode):
            method = getattr(results[self._of], self._method).options(**self._bound_options)
        else:
            method = self._of
        return method.remote(*args, **kwargs)

    def _described(self) -> str:
        return f"{self._method}()"


class MethodOutputNode(ClassMethodNode):
    """One of several values that a call returns."""

    def __init__(self, call: ClassMethodNode, index: int) -> None:
        super().__init__(call._of, call._method, (call,), {})
        self._index = index

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        return args[0][self._index]

    def _described(self) -> str:
        return f"{self._method}()[{self._index}]"


class MultiOutputNode(DAGNode):
    """The end of a graph with several results: ``execute`` returns a list."""

    def __init__(self, args: Sequence[DAGNode]) -> None:
        if not isinstance(args, list | tuple) or not all(isinstance(each, DAGNode) for each in args):
            raise TypeError(f"MultiOutputNode takes a list of nodes, not {args!r}")
        super().__init__(args, {})

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        return args


class InputNode(DAGNode):
    """What ``execute`` is given: ``with InputNode() as inp:``. Its parts are ``inp[0]``, ``inp["name"]`` and
    ``inp.name``: positional and named arguments, or where it is one argument alone, items and attributes of that.

    Raises: ValueError for arguments.
    """

    def __init__(self, *args: Any, input_type: Any = None, **kwargs: Any) -> None:
        if args or kwargs:
            raise ValueError("InputNode should not take any args or kwargs.")
        super().__init__((), {})
        #: For whoever reads the graph.
        self.input_type = input_type
        self._entered = False
        self._parts: dict[tuple[bool, int | str], InputAttributeNode] = {}

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattr__(name)
        return self._part(name, as_item=False)

    def __getitem__(self, key: int | str) -> InputAttributeNode:
        if not isinstance(key, int | str):
            raise AssertionError("Please only use int index or str as first-level key to access fields of dag input.")
        return self._part(key, as_item=True)

    def _part(self, key: int | str, *, as_item: bool) -> InputAttributeNode:
        return self._parts.setdefault((as_item, key), InputAttributeNode(self, key, as_item=as_item))

    def _input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._entered:
            raise AssertionError(
                "InputNode is a singleton instance that should be only used in context manager for dag building and "
                "execution: with InputNode() as inp: ..."
            )
        return args[0] if len(args) == 1 and not kwargs else DAGInputData(*args, **kwargs)

    def _described(self) -> str:
        return ""


class InputAttributeNode(DAGNode):
    """A part of the input."""

    def __init__(self, node: InputNode, key: int | str, *, as_item: bool) -> None:
        super().__init__((node,), {})
        self._key = key
        self._as_item = as_item

    def _run(self, args: list[Any], kwargs: dict[str, Any], results: _Results) -> Any:
        given = args[0]
        if self._as_item or isinstance(given, DAGInputData):
            return given[self._key]
        return getattr(given, cast(str, self._key))

    def _described(self) -> str:
        return repr(self._key)


class DAGInputData:
    """Several arguments of ``execute``: by index and by name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._args = args
        self._kwargs = kwargs

    def __getitem__(self, key: int | str) -> Any:
        return self._args[key] if isinstance(key, int) else self._kwargs[key]


def nodes_in(value: Any) -> Iterator[DAGNode]:
    """Those in ``value``, which may be one, or a list, tuple, set or dictionary with some in it."""
    if isinstance(value, DAGNode):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from nodes_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from nodes_in(each)


def _filled(value: Any, results: _Results) -> Any:
    """``value`` with the results of the nodes in it. What has none in it stays the same object."""
    if isinstance(value, DAGNode):
        return results[value]
    if not any(nodes_in(value)):
        return value
    if isinstance(value, dict):
        return {name: _filled(each, results) for name, each in value.items()}
    filled = [_filled(each, results) for each in value]
    return type(value)(*filled) if hasattr(value, "_fields") else type(value)(filled)
