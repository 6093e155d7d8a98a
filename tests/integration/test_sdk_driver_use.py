"""A driver used from threads, event loops and forked children, interrupted, and used after its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import queue
import signal
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.actors import Gate
from support.drivers import Driver
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions


@shoal.remote
def square(x):
    return x * x


class ReadsBack:
    """Becomes what another object holds when it is unpickled."""

    def __reduce__(self):
        return shoal.get, (shoal.put("read back"),)


@shoal.remote
def reads_back():
    return ReadsBack()


@shoal.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.n = 0

    def add(self, by=1):
        self.n += by
        return self.n


# --- threads -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
class TestThreads:
    def test_ten_threads_of_everything(self):
        counter = Counter.remote()
        start = threading.Barrier(10)

        def work(number):
            start.wait()
            for i in range(30):
                value = number * 1000 + i
                ref = square.remote(value)
                large = shoal.put(bytes([number]) * 200_000)
                ready, rest = shoal.wait([ref, large], num_returns=2, timeout=PATIENCE_S)
                assert (ready, rest) == ([ref, large], [])
                assert shoal.get(ref) == value * value
                assert shoal.get(large) == bytes([number]) * 200_000
                shoal.get(counter.add.remote())
                assert shoal.get(square.remote(ref), timeout=PATIENCE_S) == value**4
            return number

        with ThreadPoolExecutor(10) as pool:
            assert list(pool.map(work, range(10))) == list(range(10))
        assert shoal.get(counter.add.remote(0)) == 300

    def test_actors_made_in_threads(self):
        def work(number):
            actor = Counter.remote()
            assert shoal.get([actor.add.remote() for _ in range(10)]) == list(range(1, 11))
            shoal.kill(actor)
            return number

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(24))) == list(range(24))

    def test_many_threads_wait_for_one_object(self):
        gate = Gate.remote()
        ref = gate.pass_through.remote()
        with ThreadPoolExecutor(10) as pool:
            futures = [pool.submit(shoal.get, ref, timeout=PATIENCE_S) for _ in range(10)]
            shoal.get(gate.arrived.remote(1))
            shoal.get(gate.open.remote())
            assert [future.result() for future in futures] == [None] * 10

    def test_thread_gives_up_while_another_waits_on(self):
        gate = Gate.remote()
        ref = gate.pass_through.remote()
        with ThreadPoolExecutor(2) as pool:
            patient = pool.submit(shoal.get, ref, timeout=PATIENCE_S)
            for _ in range(20):
                with pytest.raises(exceptions.GetTimeoutError):
                    shoal.get(ref, timeout=0.005)
            shoal.get(gate.open.remote())
            assert patient.result() is None

    def test_threads_inside_a_task(self):
        @shoal.remote
        def outer():
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(lambda x: shoal.get(square.remote(x)), range(40)))

        # One CPU is left for them: only the main thread of a task lends its own while it waits.
        assert shoal.get(outer.remote(), timeout=PATIENCE_S) == [x * x for x in range(40)]


# --- asyncio -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
class TestFutures:
    def test_callbacks_may_wait_for_other_tasks(self):
        """Some of them for each other, while the main thread waits too."""
        values = queue.SimpleQueue()

        def then(done):
            values.put(shoal.get(square.remote(done.result()), timeout=PATIENCE_S))

        for number in range(8):
            square.remote(number).future().add_done_callback(then)
        assert shoal.get(square.remote(7), timeout=PATIENCE_S) == 49
        assert sorted(values.get(timeout=PATIENCE_S) for _ in range(8)) == [number**4 for number in range(8)]

    def test_callback_that_never_returns_holds_up_nobody(self):
        entered, leave = threading.Event(), threading.Event()

        def stays(done):
            entered.set()
            leave.wait()

        gate = Gate.remote()
        for _ in range(3):
            gate.pass_through.remote().future().add_done_callback(stays)
        shoal.get(gate.open.remote())
        try:
            assert entered.wait(PATIENCE_S)
            assert square.remote(3).future().result(PATIENCE_S) == 9
            with pytest.raises(exceptions.GetTimeoutError):
                shoal.get(Gate.remote().pass_through.remote(), timeout=0.05)
        finally:
            leave.set()

    def test_values_are_unpickled_where_waiting_is_allowed(self):
        assert reads_back.remote().future().result(PATIENCE_S) == "read back"

    def test_cancelled_future_harms_nobody(self):
        gate = Gate.remote()
        waiting = gate.pass_through.remote()
        future, other = waiting.future(), waiting.future()
        assert future.cancel()
        shoal.get(gate.open.remote())
        assert other.result(PATIENCE_S) is None
        assert future.cancelled()


@pytest.mark.usefixtures("cluster")
class TestAsyncio:
    async def test_thousand_awaits_at_once(self):
        async def one(x):
            return await square.remote(x)

        assert await asyncio.gather(*[one(x) for x in range(1000)]) == [x * x for x in range(1000)]

    async def test_thousand_awaits_in_turn(self):
        counter = Counter.remote()
        for number in range(1, 1001):
            assert await counter.add.remote() == number

    async def test_loop_stays_responsive(self):
        gate = Gate.remote()
        waiting = asyncio.ensure_future(asyncio.wait_for(_await(gate.pass_through.remote()), PATIENCE_S))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        await gate.open.remote()
        assert await waiting is None

    async def test_cancelled_await_harms_nobody(self):
        gate = Gate.remote()
        ref = gate.pass_through.remote()
        tasks = [asyncio.ensure_future(_await(ref)) for _ in range(10)]
        await gate.arrived.remote(1)
        for task in tasks[:5]:
            task.cancel()
        await gate.open.remote()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[:5]] == [asyncio.CancelledError] * 5
        assert results[5:] == [None] * 5

    async def test_errors_and_large_values(self):
        @shoal.remote(max_retries=0)
        def odd(x):
            if x % 2:
                raise ValueError(x)
            return bytes([x]) * 300_000

        results = await asyncio.gather(*[_await(odd.remote(x)) for x in range(20)], return_exceptions=True)
        for x, result in enumerate(results):
            if x % 2:
                assert isinstance(result, ValueError)
            else:
                assert result == bytes([x]) * 300_000

    def test_several_loops_in_threads(self):
        async def main(number):
            return sum(await asyncio.gather(*[_await(square.remote(number)) for _ in range(50)]))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda n: asyncio.run(main(n)), range(4))) == [50 * n * n for n in range(4)]


async def _await(ref):
    return await ref


# --- interrupts ----------------------------------------------------------------------------------------------------


def test_interrupted_a_hundred_times():
    program = """
        ray.init(num_cpus=1, logging_level="ERROR")

        @ray.remote
        def square(x):
            return x * x

        @ray.remote
        class Counter:
            def __init__(self):
                self.n = 0

            def add(self):
                self.n += 1
                return self.n

        @ray.remote
        def forever():
            time.sleep(1000)

        counter = Counter.remote()
        ray.get(counter.add.remote())
        stuck = forever.options(num_cpus=0).remote()
        waits = [
            lambda: ray.get(stuck),
            lambda: ray.get([stuck, stuck]),
            lambda: ray.wait([stuck]),
            lambda: ray.get(stuck, timeout=1000),
        ]
        for number in range(100):
            try:
                # Sent while this thread waits: another thread sees to that.
                threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
                waits[number % len(waits)]()
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("not interrupted")
            assert ray.get(square.remote(number)) == number * number
            assert ray.get(counter.add.remote()) == number + 2
        ray.shutdown()
        report(well=True)
    """
    with Driver(program) as driver:
        assert driver.report() == {"well": True}, driver.text
        assert driver.wait() == 0


def test_interrupted_while_it_submits_and_collects():
    """An interrupt at any moment leaves the session whole."""
    program = """
        ray.init(num_cpus=2, logging_level="ERROR")

        @ray.remote
        def square(x):
            return x * x

        stop = threading.Event()

        def interrupt():
            while not stop.wait(0.02):
                os.kill(os.getpid(), signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        ray.get(square.remote(1))
        interrupter.start()
        interrupts = 0
        while interrupts < 100:
            try:
                while True:
                    ray.get([square.remote(x) for x in range(50)])
            except KeyboardInterrupt:
                interrupts += 1
        while True:
            try:
                stop.set()
                interrupter.join()
                break
            except KeyboardInterrupt:
                continue
        assert ray.get([square.remote(x) for x in range(100)]) == [x * x for x in range(100)]
        ray.shutdown()
        report(interrupts=interrupts)
    """
    with Driver(program) as driver:
        assert driver.report() == {"interrupts": 100}, driver.text
        assert driver.wait() == 0


def test_exceptions_out_of_handlers_at_any_byte_code():
    """Time limits, say. The strikes are spread over all that one round of calls, puts and waits does in Shoal."""
    program = """
        class Late(Exception):
            pass

        def late(*_):
            raise Late

        signal.signal(signal.SIGALRM, late)
        ray.init(num_cpus=2, logging_level="ERROR")

        @ray.remote
        def same(x):
            return x

        @ray.remote(num_cpus=0)
        class Same:
            def call(self, x):
                return x

        actor = Same.remote()

        def round(number):
            refs = [same.remote(number), actor.call.remote(number)]
            refs.append(actor.call.remote(same.remote(ray.put(number))))
            large = ray.put(bytes(200_000))
            ray.wait(refs, num_returns=2, timeout=60)
            assert len(ray.get(large, timeout=60)) == 200_000
            return ray.get(refs, timeout=60)

        passed = strike_at = 0

        def trace(frame, event, arg):
            if not frame.f_globals.get("__name__", "").startswith("shoal"):
                return None
            frame.f_trace_opcodes = True
            return at_opcode

        def at_opcode(frame, event, arg):
            global passed
            if event == "opcode":
                passed += 1
                if passed == strike_at:
                    signal.raise_signal(signal.SIGALRM)
            return at_opcode

        def struck_round(at):
            global passed, strike_at
            passed, strike_at = 0, at
            sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one such frame when tracing begins
            sys.settrace(trace)
            try:
                round(at)
            except Late:
                return True
            finally:
                sys.settrace(None)
            return False

        round(0)
        assert not struck_round(-1)
        length, strikes = passed, 0
        for at in range(1, length, length // ROUNDS):
            strikes += struck_round(at)
            assert round(at) == [at] * 3, at
        ray.shutdown()
        report(strikes=strikes)
    """.replace("ROUNDS", "300")
    with Driver(program) as driver:
        # The number of byte codes of a round varies with what has arrived when.
        assert driver.report()["strikes"] > 200, driver.text
        assert driver.wait() == 0


def test_users_own_handler_is_kept():
    program = """
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        ray.init(num_cpus=1, logging_level="ERROR")

        @ray.remote
        def f(x):
            return x

        for _ in range(20):
            os.kill(os.getpid(), signal.SIGINT)
            assert ray.get(f.remote(1)) == 1
        report(seen=len(seen))
    """
    with Driver(program) as driver:
        assert driver.report() == {"seen": 20}


# --- forks ---------------------------------------------------------------------------------------------------------


def in_child(function):
    """What ``function`` returns or raises in a forked child of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            answer = ["returned", function()]
        except BaseException as error:
            answer = [type(error).__name__, str(error)]
        with os.fdopen(write, "w") as pipe:
            json.dump(answer, pipe, default=str)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = json.load(pipe)
    assert os.waitpid(pid, 0)[1] == 0
    return answer


@pytest.mark.usefixtures("cluster")
class TestForks:
    @pytest.mark.parametrize("use", ["task", "call", "put", "get", "wait", "large get", "context"])
    def test_use_in_the_child(self, use):
        counter = Counter.remote()
        assert shoal.get(counter.add.remote()) == 1
        small, large = square.remote(2), shoal.put(b"x" * 1_000_000)
        shoal.wait([small])
        uses = {
            "task": lambda: square.remote(1),
            "call": lambda: counter.add.remote(),
            "put": lambda: shoal.put(1),
            "get": lambda: shoal.get(small),
            "wait": lambda: shoal.wait([small]),
            "large get": lambda: shoal.get(large),
            "context": lambda: shoal.get_runtime_context().get_node_id(),
        }
        name, text = in_child(uses[use])
        assert name in ("ShoalSystemError", "RaySystemError"), (name, text)
        assert "fork" in text
        # The parent's session has not noticed.
        assert shoal.get(counter.add.remote()) == 2
        assert shoal.get(large) == b"x" * 1_000_000

    def test_children_that_end_the_python_way(self):
        """Exit hooks, and the collection of references, in a child must not touch the parent's session."""
        refs = [shoal.put(b"x" * 200_000) for _ in range(5)]
        counter = Counter.remote()
        for _ in range(5):
            process = multiprocessing.get_context("fork").Process(target=refs.clear)
            process.start()
            process.join()
            assert process.exitcode == 0
        assert [len(value) for value in shoal.get(refs)] == [200_000] * 5
        assert shoal.get(counter.add.remote()) == 1
        assert shoal.get(square.remote(3)) == 9

    def test_a_child_ends_by_a_signal_whatever_it_does(self):
        """Not by an exception, which a destructor or a careless ``except`` may swallow."""
        ready, tell = os.pipe()

        def stubborn():
            os.write(tell, b"x")
            while True:
                with contextlib.suppress(BaseException):
                    signal.pause()

        process = multiprocessing.get_context("fork").Process(target=stubborn)
        process.start()
        os.read(ready, 1)
        process.terminate()
        process.join(PATIENCE_S)
        exitcode = process.exitcode
        process.kill()
        for end in (ready, tell):
            os.close(end)
        assert exitcode == -signal.SIGTERM

    def test_pool_of_forks(self):
        ref = square.remote(4)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(abs, range(-10, 0)) == list(range(10, 0, -1))
        assert shoal.get(ref) == 16

    def test_fork_while_another_thread_waits(self):
        gate = Gate.remote()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(shoal.get, gate.pass_through.remote(), timeout=PATIENCE_S)
            shoal.get(gate.arrived.remote(1))
            for _ in range(5):
                assert in_child(lambda: 5) == ["returned", 5]
            shoal.get(gate.open.remote())
            assert waiting.result() is None


def test_child_may_start_a_session_of_its_own(no_cluster):
    program = """
        ray.init(num_cpus=1, logging_level="ERROR")

        @ray.remote
        def f():
            return os.getpid()

        mine = ray.get(f.remote())
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            ray.init(num_cpus=1, logging_level="ERROR")
            os.write(write, str(ray.get(f.remote())).encode())
            ray.shutdown()
            os._exit(0)
        theirs = int(os.read(read, 100))
        status = os.waitpid(pid, 0)[1]
        report(status=status, apart=theirs != mine, again=ray.get(f.remote()) == mine)
    """
    with Driver(program) as driver:
        assert driver.report() == {"status": 0, "apart": True, "again": True}
        assert driver.wait() == 0


def test_a_child_that_is_terminated_while_it_forks_ends(no_cluster, tmp_path):
    """As a pool does that ends before all of its processes have begun."""
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import os, signal

        def terminated_early():
            if os.environ.get("TERMINATED_EARLY"):
                os.kill(os.getpid(), signal.SIGTERM)

        os.register_at_fork(after_in_child=terminated_early)
        """)
    )
    program = """
        import multiprocessing, signal

        ray.init(num_cpus=1, logging_level="ERROR")
        os.environ["TERMINATED_EARLY"] = "1"
        process = multiprocessing.get_context("fork").Process(target=signal.pause)
        process.start()
        process.join(60)
        exitcode = process.exitcode
        process.kill()
        report(exitcode=exitcode)
    """
    with Driver(program, env={"PYTHONPATH": str(tmp_path)}) as driver:
        assert driver.report() == {"exitcode": -signal.SIGTERM}, driver.text


# --- after the end -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_cluster")
class TestAfterShutdown:
    @pytest.fixture
    def left(self, monkeypatch):
        """What is left of a session that has ended; a new one does not start by itself."""
        shoal.init(num_cpus=1, logging_level="ERROR")
        counter = Counter.options(name="counter").remote()
        left = {
            "counter": counter,
            "small": shoal.put(1),
            "large": shoal.put(b"x" * 1_000_000),
            "result": square.remote(2),
            "bound": square.options(num_cpus=0.5),
            "pending": Gate.remote().pass_through.remote(),
        }
        shoal.get([counter.add.remote(), left["result"]])
        shoal.shutdown()
        monkeypatch.setenv("SHOAL_ENABLE_AUTO_CONNECT", "0")
        return left

    @pytest.mark.parametrize(
        "use",
        [
            lambda left: shoal.get(left["small"]),
            lambda left: shoal.get(left["large"]),
            lambda left: shoal.get([left["result"], left["small"]]),
            lambda left: shoal.wait([left["result"]]),
            lambda left: left["counter"].add.remote(),
            lambda left: left["bound"].remote(1),
            lambda left: square.remote(1),
            lambda left: Counter.remote(),
            lambda left: shoal.put(1),
            lambda left: shoal.get_actor("counter"),
            lambda left: shoal.kill(left["counter"]),
            lambda left: shoal.nodes(),
            lambda left: shoal.cluster_resources(),
            lambda left: asyncio.run(_await(left["result"])),
            lambda left: left["result"].future().result(60),
        ],
        ids="get,get large,get list,wait,call,bound task,task,actor,put,name,kill,nodes,resources,await,future".split(
            ","
        ),
    )
    def test_clear_error(self, left, use):
        with pytest.raises((exceptions.ShoalError, ValueError), match=r"\w+ \w+"):
            use(left)
        assert not shoal.is_initialized()

    def test_no_session_starts_for_what_belongs_to_an_earlier_one(self, left, monkeypatch):
        monkeypatch.delenv("SHOAL_ENABLE_AUTO_CONNECT")
        uses = [
            lambda: shoal.get(left["small"]),
            lambda: shoal.get([left["result"]]),
            lambda: shoal.wait([left["pending"]]),
            lambda: shoal.kill(left["counter"]),
        ]
        for use in uses:
            with pytest.raises(ValueError, match="session"):
                use()
            assert not shoal.is_initialized()

    def test_old_references_in_a_new_session(self, left):
        """Values, and what was pending at the end, wherever they are given."""
        shoal.init(num_cpus=1, logging_level="ERROR")
        uses = [
            lambda ref: shoal.get(ref, timeout=PATIENCE_S),
            lambda ref: shoal.get([shoal.put(1), ref], timeout=PATIENCE_S),
            lambda ref: shoal.wait([ref], timeout=PATIENCE_S),
            lambda ref: square.remote(ref),
            lambda ref: square.remote(x=ref),
            lambda ref: square.remote([{"deep": ref}]),
            lambda ref: shoal.put([ref]),
            lambda ref: Counter.remote().add.remote(ref),
            lambda ref: ref.future().result(PATIENCE_S),
            lambda ref: asyncio.run(_await(ref)),
        ]
        for name in ("small", "large", "result", "pending"):
            for use in uses:
                with pytest.raises(ValueError, match="belongs to a session that was shut down"):
                    use(left[name])
        assert shoal.get(left["bound"].remote(3)) == 9

    def test_references_may_go_at_any_time(self, left):
        left.clear()
        shoal.init(num_cpus=1, logging_level="ERROR")
        assert shoal.get(square.remote(5)) == 25


def test_signal_handlers_are_given_back(no_cluster):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    shoal.init(num_cpus=1, logging_level="ERROR")
    shoal.shutdown()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
