"""``CompiledDAG``: a graph whose actors wait for its values, as the process has it that compiled it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import threading
import time
import uuid
import weakref
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoal import _current, exceptions
from shoal._api.compiled import loop, ring
from shoal._api.compiled.drawing import Drawing, as_dot, as_text
from shoal._api.compiled.executions import Execution, Executions
from shoal._api.compiled.handover import HandOver
from shoal._api.compiled.messages import Failed, packed, unpacked
from shoal._api.compiled.outlet import Outlet
from shoal._api.compiled.plan import DRIVER, Plan
from shoal._api.compiled.refs import CompiledDAGFuture, CompiledDAGRef
from shoal._api.compiled.ring import Ring, RingClosed, RingReader, RingTimeout, RingWriter
from shoal._api.compiled.settings import DAGContext
from shoal._core.object_ref import ObjectRef
from shoal._net.interrupts import uncut
from shoal._store.remote import RemoteStore
from shoal._wire.peer_frames import SYSTEM_GROUP
from shoal._wire.value_kinds import STORED

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

logger = logging.getLogger("shoal")

#: When the graph has ended, why it has is known after so many seconds.
WHY_S = 10.0
#: graphviz has drawn a graph by then, in seconds.
DRAW_S = 60.0


class _Running:
    """The rings of a graph and the actors that use them."""

    def __init__(self, core: CoreWorker, graph: Plan) -> None:
        self.core = core
        self.graph = graph
        #: By wire; those that this process writes or reads as writers and readers.
        self.rings: dict[int, Ring] = {}
        #: Of what runs in each actor.
        self.loops: list[ObjectRef[None]] = []
        #: By the user.
        self.torn_down = False

    def close(self) -> None:
        """Everybody who waits for something of this graph stops. Does not wait itself."""
        for each in self.rings.values():
            each.close()

    def ended(self, timeout: float) -> list[int]:
        """The actors, by number, that have let go of the graph in so many seconds."""
        if _current.current_or_none() is not self.core:
            return list(range(len(self.loops)))  # with the session
        ready, _ = self.core.waiting.wait(self.loops, len(self.loops), timeout)
        return [number for number, ref in enumerate(self.loops) if ref in ready]

    def why(self) -> Exception:
        """It has been closed: because an actor has died, for example."""
        if not self.torn_down:
            for number in self.ended(WHY_S):
                try:
                    self.core.values.get_one(self.loops[number], 0)
                except Exception as error:  # whatever ended that actor's part
                    return error
        return exceptions.ChannelError("Channel closed: the compiled graph was torn down. Compile it anew.")


def start(core: CoreWorker, graph: Plan, slots: int, slot_bytes: int) -> _Running:
    """Have the actors of ``graph`` begin. ``slots``: messages that a ring has room for, of ``slot_bytes`` at first.

    Raises: as ``compile_graph``.
    """
    _check_places(core, graph)
    running = _Running(core, graph)
    fds = {wire: ring.create(len(readers), slots, slot_bytes) for wire, readers in graph.readers.items()}
    try:
        written = [wire for wire, _ in graph.inputs]
        for wire, fd in fds.items():
            readers, own = graph.readers[wire], os.dup(fd)
            if wire in written:
                running.rings[wire] = RingWriter(own)
            elif DRIVER in readers:
                running.rings[wire] = RingReader(own, readers.index(DRIVER))
            else:
                running.rings[wire] = Ring(own)
        with HandOver(core.session_dir) as handover:
            parts = [
                loop.Part(
                    number,
                    handover.path,
                    handover.secret,
                    graph.steps[number],
                    [(wire, graph.readers[wire].index(number)) for wire in graph.read(number)],
                    graph.written(number),
                )
                for number in range(len(graph.actors))
            ]
            running.loops = [_call(actor, 0, loop.run, part) for actor, part in zip(graph.actors, parts, strict=True)]
            handover.serve(
                [[fds[wire] for wire in (*(read for read, _ in part.reads), *part.writes)] for part in parts],
                partial(_raise_early_end, running),
            )
    except BaseException:
        running.close()
        raise
    finally:
        for fd in fds.values():
            os.close(fd)
    for ref in running.loops:
        core.waiting.when_ready(ref, running.close)
    return running


def _call(actor: Any, retries: int, function: Any, *args: Any) -> ObjectRef[Any]:
    """Of the actor, but beside what it does."""
    method = actor.__ray_call__.options(concurrency_group=SYSTEM_GROUP, max_task_retries=retries)
    call: ObjectRef[Any] = method.remote(function, *args)
    return call


def _check_places(core: CoreWorker, graph: Plan) -> None:
    """Raises: NotImplementedError for actors of other nodes; ValueError for methods that cannot take part."""
    # Again and again: one that is being restarted is waited for.
    looks = [
        _call(actor, -1, loop.look, [step.method for step in steps])
        for actor, steps in zip(graph.actors, graph.steps, strict=True)
    ]
    outside = isinstance(core.store, RemoteStore)
    for actor, node_id in zip(graph.actors, core.values.get_many(looks), strict=True):
        if node_id != core.node_id or outside:
            raise NotImplementedError(
                f"The values of a compiled graph go through memory that its actors and its driver share, and {actor!r} "
                f"is on node {node_id.hex()}, the driver "
                f"{'outside of the cluster' if outside else 'on node ' + core.node_id.hex()}. Create the actors "
                "with NodeAffinitySchedulingStrategy(shoal.get_runtime_context().get_node_id(), soft=False), or run "
                "the graph by execute()."
            )


def _raise_early_end(running: _Running) -> None:
    """Raises what has ended an actor's part before it has begun."""
    core = running.core
    for ref in core.waiting.wait(running.loops, len(running.loops), 0)[0]:
        core.values.get_one(ref, 0)
        raise exceptions.ChannelError("An actor has left the compiled graph before it was there.")


class _Outputs:
    """Reads rows. One thread at a time."""

    def __init__(self, running: _Running) -> None:
        core, rings = running.core, running.rings
        self._load = partial(core.values.load_stored, home=core.node_id)
        self._wires = running.graph.outputs
        self._readers: dict[int, RingReader] = {}
        for wire in self._wires:
            self._readers[wire] = cast(RingReader, rings[wire])
        #: What has been read of the next row.
        self._values: dict[int, Any] = {}

    def is_ready(self) -> bool:
        return all(wire in self._values or reader.is_ready() for wire, reader in self._readers.items())

    def row(self, deadline: float | None) -> list[Any]:
        """The next one. Raises: RingTimeout, RingClosed; what has come by then is kept."""
        for wire, reader in self._readers.items():
            if wire not in self._values:
                reader.await_message(deadline)
                with uncut():
                    self._values[wire] = self._taken(reader)
        values, self._values = self._values, {}
        return [values[wire] for wire in self._wires]

    def _taken(self, reader: RingReader) -> Any:
        kind, payload = reader.message()
        try:
            return unpacked(kind, payload, self._load)
        except Exception as error:  # whatever the user's classes raise
            if kind == STORED and reader.closed:
                raise RingClosed from None  # the actor has let go of the graph, and of it
            return Failed.of(exceptions.TaskError.from_exception("the result of a compiled graph", error))
        finally:
            payload.release()
            reader.release()


class CompiledDAG:
    """What ``experimental_compile`` returns. Ends with ``teardown``, or when nobody has it any more."""

    def __init__(
        self,
        drawing: Drawing,
        graph: Plan,
        running: _Running,
        executions: Executions,
        submit_timeout: float,
        *,
        enable_asyncio: bool,
    ) -> None:
        self._id = uuid.uuid4().hex
        self._drawing = drawing
        self._graph = graph
        self._running = running
        self._executions = executions
        self._submit_timeout = submit_timeout
        self._enable_asyncio = enable_asyncio
        self._outputs = _Outputs(running)
        #: In the order of the plan's inputs.
        self._outlets = [Outlet(cast(RingWriter, running.rings[wire]), running.core.values) for wire, _ in graph.inputs]
        self._submitting = threading.Lock()
        self._reading = threading.Lock()
        self._close = weakref.finalize(self, running.close)
        if enable_asyncio:
            threading.Thread(
                target=_resolve,
                args=(running, executions, self._outputs, self._submitting),
                name="shoal-graph",
                daemon=True,
            ).start()

    def get_id(self) -> str:
        return self._id

    def __repr__(self) -> str:
        return f"CompiledDAG({self._id})"

    @property
    def is_teardown(self) -> bool:
        return self._running.torn_down

    def execute(self, /, *args: Any, **kwargs: Any) -> CompiledDAGRef | list[CompiledDAGRef]:
        """Run the graph once; returns at once, a list for a ``MultiOutputNode``.

        Raises: ValueError (arguments that its ``InputNode`` does not stand for, or a graph with ``enable_asyncio``),
        TypeError (not picklable, or with an ObjectRef inside), CompiledGraphCapacityExceeded, ChannelTimeoutError,
        ChannelError (torn down), ActorDiedError, ActorUnavailableError, OSError, ObjectStoreFullError,
        OutOfDiskError (no memory).
        """
        if self._enable_asyncio:
            raise ValueError("Use execute_async if enable_asyncio=True")
        execution = self._submit(args, kwargs, None)
        refs = [CompiledDAGRef(self, execution, output) for output in range(len(self._graph.outputs))]
        return refs if self._graph.returns_list else refs[0]

    async def execute_async(self, /, *args: Any, **kwargs: Any) -> CompiledDAGFuture | list[CompiledDAGFuture]:
        """As ``execute``, of a graph with ``enable_asyncio``; what it returns is awaited."""
        if not self._enable_asyncio:
            raise ValueError("Use execute if enable_asyncio=False")
        execution = self._submit(args, kwargs, asyncio.get_running_loop().create_future())
        futures = [CompiledDAGFuture(self, execution, output) for output in range(len(self._graph.outputs))]
        return futures if self._graph.returns_list else futures[0]

    def visualize(
        self,
        filename: str = "compiled_graph",
        format: str = "png",
        view: bool = False,
        channel_details: bool = False,
    ) -> str:
        """The graph as text: ``format="ascii"`` for people, printed with ``view``; else in graphviz's language, which
        is also written to ``filename`` and drawn to ``filename.format``, which ``view`` opens. ``channel_details``:
        edges say which way their values go.

        Raises: ImportError where graphviz's program ``dot`` is not installed; the text is in ``filename`` then.
        ValueError (``channel_details`` with ascii, a format that graphviz does not know), OSError.
        """
        if format == "ascii" and channel_details:
            raise ValueError("Parameters 'channel_details' are not compatible with 'ascii' format.")
        if format == "ascii":
            text = as_text(self._drawing)
            if view:
                print(text)
            return text
        source = as_dot(self._drawing, channels=channel_details)
        Path(filename).write_text(source)
        if shutil.which("dot") is None:
            raise ImportError(
                f"graphviz's program dot, which draws {filename}.{format}, is not installed: apt-get install "
                f'graphviz. The graph is in {filename}, in its language; visualize(format="ascii") draws it as text.'
            )
        drawn = Path(f"{filename}.{format}")
        done = subprocess.run(
            ["dot", f"-T{format}", "-o", drawn, filename], capture_output=True, text=True, timeout=DRAW_S, check=False
        )
        if done.returncode:
            raise ValueError(f"graphviz cannot draw the graph as {format!r}: {done.stderr.strip()}")
        if view:
            webbrowser.open(drawn.resolve().as_uri())
        return source

    def teardown(self, kill_actors: bool = False) -> None:
        """Have the actors let go of the graph, and wait for what they do, ``DAGContext.teardown_timeout`` at most; they
        go on serving ordinary calls. ``kill_actors``: those that have not by then are killed.
        """
        running = self._running
        if running.torn_down:
            return
        running.torn_down = True
        self._close()
        timeout = DAGContext.get_current().teardown_timeout
        ended = running.ended(timeout)
        for outlet in self._outlets:
            outlet.clear()
        for number, actor in enumerate(self._graph.actors):
            if number not in ended:
                logger.warning(
                    "%r is still at work for a compiled graph %g s after its teardown().%s",
                    actor,
                    timeout,
                    " It is killed." if kill_actors else " teardown(kill_actors=True) kills such actors.",
                )
                if kill_actors:
                    running.core.actors.kill(actor._shoal_client, no_restart=True)

    # -- for the results --------------------------------------------------------------------------------

    def _read_until(self, execution: Execution, timeout: float | None) -> None:
        """Raises: as ``CompiledDAGRef.get``."""
        timeout = DAGContext.get_current().get_timeout if timeout is None else timeout
        deadline = _deadline(timeout)
        with self._reading:
            while execution.row is None:
                if self._executions.unread[0] is not execution:
                    self._executions.check_buffered()
                self._read_row(deadline, timeout)

    def _read_row(self, deadline: float | None, timeout: float) -> None:
        try:
            row = self._outputs.row(deadline)
        except RingTimeout:
            raise exceptions.ChannelTimeoutError(
                "If the execution is expected to take a long time, increase DAGContext.get_timeout which is currently "
                f"{timeout:g} seconds. Otherwise, this may indicate that the execution is hanging."
            ) from None
        except RingClosed:
            raise self._running.why() from None
        self._executions.on_row(row)

    async def _arrived(self, execution: Execution) -> None:
        """Raises: as ``CompiledDAGFuture``."""
        if execution.row is None:
            await asyncio.shield(execution.future)

    # -- executions -------------------------------------------------------------------------------------

    def _submit(self, args: tuple[Any, ...], kwargs: dict[str, Any], future: Any) -> Execution:
        messages = [packed(value, "an argument of a compiled graph") for value in self._inputs(args, kwargs)]
        deadline = _deadline(self._submit_timeout)
        with self._submitting:
            if not self._enable_asyncio:
                self._read_dropped()
            self._executions.check_inflight(until_taken=self._enable_asyncio)
            outlets = self._outlets
            try:
                for outlet in outlets:
                    outlet.ring.await_room(deadline)
            except RingTimeout:
                raise exceptions.ChannelTimeoutError(
                    "If the execution is expected to take a long time, increase submit_timeout which is currently "
                    f"{self._submit_timeout:g} seconds. Otherwise, this may indicate that execution is hanging."
                ) from None
            except RingClosed:
                raise self._running.why() from None
            messages = [outlet.placed(message) for outlet, message in zip(outlets, messages, strict=True)]
            with uncut():  # all of them, or none
                execution = self._executions.begin(future)
                for outlet, message in zip(outlets, messages, strict=True):
                    outlet.write(message)
        return execution

    def _inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """What is written, in the order of the plan. Raises: ValueError."""
        graph = self._graph
        if len(args) != graph.positional:
            raise ValueError(
                f"dag.execute() or dag.execute_async() must be called with {graph.positional} positional args, got "
                f"{len(args)}"
            )
        for name in graph.names:
            if name not in kwargs:
                raise ValueError(f"dag.execute() or dag.execute_async() must be called with kwarg `{name}`")
        for name in kwargs:
            if name not in graph.names:
                raise ValueError(f"dag.execute() was given `{name}`, which nothing in the graph takes")
        return [
            args[0] if key is None else args[key] if isinstance(key, int) else kwargs[key] for _, key in graph.inputs
        ]

    def _read_dropped(self) -> None:
        """Results that nobody will ask for make room."""
        if self._executions.next_is_dropped:
            timeout = DAGContext.get_current().get_timeout
            deadline = _deadline(timeout)
            with self._reading:
                while self._executions.next_is_dropped:
                    self._read_row(deadline, timeout)


def _deadline(timeout: float) -> float | None:
    return None if timeout == -1 else time.monotonic() + timeout


def _resolve(running: _Running, executions: Executions, outputs: _Outputs, submitting: threading.Lock) -> None:
    """In a thread of a graph with ``enable_asyncio``: all rows that have come wake each event loop once."""
    error: Exception | None = None
    while error is None:
        arrived: list[Execution] = []
        try:
            arrived.append(executions.on_row(outputs.row(None)))
            while outputs.is_ready():
                arrived.append(executions.on_row(outputs.row(None)))
        except RingClosed:
            running.close()
            error = running.why()
            with submitting:  # nothing is submitted any more
                arrived += executions.unread
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for execution in arrived:
            by_loop.setdefault(execution.future.get_loop(), []).append(execution.future)
        del arrived
        for event_loop, futures in by_loop.items():
            try:
                event_loop.call_soon_threadsafe(_set_done, futures, error)
            except RuntimeError:
                continue  # it is closed: nobody awaits any more


def _set_done(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # seen: whoever awaits it gets it, and nobody need
