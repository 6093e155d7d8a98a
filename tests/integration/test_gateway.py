"""Clients outside of the cluster, through the gateway of one of two nodes, as processes of their own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.certificates import Authority
from support.clusters import MIB, ProcessCluster, RayletProcess
from support.drivers import Driver
from support.processes import alive, eventually
from support.servers import free_port
from support.tcp_proxy import TcpProxy

import shoal
from shoal_common.tls import VARIABLES


@dataclass
class Outside:
    cluster: ProcessCluster
    node: RayletProcess
    port: int

    def environment(self, port: int | None = None, token: str | None = None) -> dict[str, str]:
        return {
            "SHOAL_ADDRESS": f"shoal://127.0.0.1:{port or self.port}",
            "SHOAL_AUTH_TOKEN": token if token is not None else self.cluster.token,
            "PYTHONWARNINGS": "error",
        }

    def client(self, code: str, *arguments: str, port: int | None = None) -> Driver:
        return Driver(code, *arguments, env=self.environment(port))

    def run(self, code: str) -> str:
        """What it prints, if it ends well."""
        with self.client(code) as client:
            output, _ = client.process.communicate(timeout=60)
            assert client.process.returncode == 0, output
            return output


def start(cluster: ProcessCluster, grace_s: float, store_bytes: int = 256 * MIB) -> Outside:
    port = free_port()
    node = cluster.add_node(
        cpus=2, resources={"first": 1}, store_bytes=store_bytes, gateway_port=port, gateway_grace_s=grace_s
    )
    cluster.add_node(cpus=1, resources={"second": 1}, store_bytes=64 * MIB)
    return Outside(cluster, node, port)


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with ProcessCluster() as cluster:
        yield start(cluster, 60.0)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Outside]:
    """Sessions end two seconds after their connection, and the store is small."""
    with ProcessCluster() as cluster:
        yield start(cluster, 2.0, 32 * MIB)


# -- the same API, the same errors -----------------------------------------------------------------------


def test_tasks_and_nested_tasks(outside: Outside) -> None:
    output = outside.run("""
        ray.init()

        @ray.remote
        def square(x):
            return x * x

        @ray.remote
        def sum_of_squares(n):
            return sum(ray.get([square.remote(i) for i in range(n)]))

        print(ray.get([square.remote(i) for i in range(1000)]) == [i * i for i in range(1000)])
        print(ray.get(sum_of_squares.remote(10)))
        here = [r for r in ray.nodes() if r["Alive"]]
        print(len(here), ray.cluster_resources()["CPU"])
    """)
    assert output.splitlines() == ["True", "285", "2 3.0"]


def test_actors_on_both_nodes(outside: Outside) -> None:
    output = outside.run("""
        ray.init(namespace="ns")

        @ray.remote(num_cpus=0)
        class Counter:
            def __init__(self):
                self.n = 0
            def add(self, k=1):
                self.n += k
                return self.n
            def call(self, other):
                return ray.get(other.add.remote(10))

        here = Counter.options(resources={"first": 0.1}, name="here").remote()
        there = Counter.options(resources={"second": 0.1}).remote()
        for counter in here, there:
            assert ray.get([counter.add.remote() for _ in range(500)]) == list(range(1, 501))
        print(ray.get(there.call.remote(here)), ray.get(here.call.remote(there)))
        print(ray.get(ray.get_actor("here").add.remote()))
        ray.kill(here)
        try:
            ray.get(here.add.remote())
        except ray.exceptions.RayActorError as error:
            print(type(error).__name__)
        try:
            ray.get_actor("here")
        except ValueError as error:
            print("no such actor")
    """)
    assert output.splitlines() == ["510 510", "511", "ActorDiedError", "no such actor"]


def test_objects_of_all_sizes(outside: Outside) -> None:
    output = outside.run("""
        import gc
        import numpy as np
        ray.init()

        @ray.remote
        def double(data):
            return data * 2 if isinstance(data, np.ndarray) else data + data

        for size in 1, 1000, 100 * 1024, 1 << 20, 10 << 20:
            data = os.urandom(size)
            ref = ray.put(data)
            assert ray.get(ref) == data
            assert ray.get(double.remote(ref)) == data + data
        array = np.arange(100 << 17, dtype=np.float64)  # 100 MiB
        ref = ray.put(array)
        got = ray.get(ref)
        assert (got == array).all() and not got.flags.writeable
        assert ray.get(ref) is not got and np.shares_memory(ray.get(ref), got), "one copy in this process"
        del got, ref
        gc.collect()
        doubled = ray.get(double.remote(np.ones(40 << 17)))
        assert doubled.sum() == 2 * (40 << 17)
        print("whole")
    """)
    assert output.splitlines() == ["whole"]


def test_an_object_larger_than_the_store_becomes_a_file(impatient: Outside) -> None:
    output = impatient.run("""
        import numpy as np
        ray.init()
        array = np.arange(40 << 17, dtype=np.float64)  # 40 MiB in a store of 32
        ref = ray.put(array)
        print((ray.get(ref) == array).all(), ray.get(ray.remote(lambda a: float(a[-1])).remote(ref)) == array[-1])
    """)
    assert output.splitlines() == ["True True"]


def test_references_in_values_and_values_owned_outside(outside: Outside) -> None:
    output = outside.run("""
        ray.init()

        @ray.remote
        def total(boxes):
            return sum(ray.get(box["ref"]) for box in boxes)

        @ray.remote
        class Keeper:
            def keep(self, refs):
                self.refs = refs
            def read(self):
                return ray.get(self.refs[0])
            def make(self):
                return [ray.put("made inside")]

        print(ray.get(total.remote([{"ref": ray.put(i)} for i in range(5)])))
        keeper = Keeper.remote()
        mine = ray.put("mine")
        ray.get(keeper.keep.remote([mine]))
        del mine  # borrowed: the client keeps it for the actor
        print(ray.get(keeper.read.remote()))
        print(ray.get(ray.get(keeper.make.remote())[0]))
    """)
    assert output.splitlines() == ["10", "mine", "made inside"]


def test_a_full_store_spills_what_a_client_writes(outside: Outside) -> None:
    output = outside.run("""
        import numpy as np
        ray.init()
        refs = [ray.put(np.full(4 << 20, i, dtype=np.uint8)) for i in range(100)]  # 400 MiB in a store of 256
        print(all((ray.get(ref) == i).all() for i, ref in enumerate(refs)))
    """)
    assert output.splitlines() == ["True"]


def test_errors_are_those_of_a_driver_inside(outside: Outside) -> None:
    output = outside.run("""
        ray.init()

        class Mine(ValueError):
            pass

        @ray.remote
        def fail():
            raise Mine("on purpose")

        @ray.remote(max_retries=0)
        def die():
            os._exit(3)

        for ref, expected in ((fail.remote(), Mine), (fail.remote(), ray.exceptions.RayTaskError),
                              (die.remote(), ray.exceptions.WorkerCrashedError)):
            try:
                ray.get(ref)
            except expected as error:
                print("caught")
        try:
            ray.get(ray.remote(lambda s: time.sleep(s)).remote(60), timeout=0.1)
        except ray.exceptions.GetTimeoutError:
            print("timeout")
        ready, rest = ray.wait([ray.put(1), ray.remote(lambda s: time.sleep(s)).remote(60)], num_returns=1)
        print(len(ready), len(rest))
    """)
    assert output.splitlines() == ["caught", "caught", "caught", "timeout", "1 1"]


def test_what_tasks_print_arrives(outside: Outside) -> None:
    """Before and after the connection was cut."""
    code = """
        ray.init(logging_level="ERROR")

        @ray.remote(num_cpus=0)
        class Greeter:
            def greet(self, where):
                print("hello from the", where)

        there = Greeter.options(resources={"second": 0.1}).remote()
        ray.get(there.greet.remote("other node"))
        command()
        here = Greeter.options(resources={"first": 0.1}).remote()
        ray.get(here.greet.remote("gateway's node"))
        ray.shutdown()
    """
    with TcpProxy(outside.port) as proxy, outside.client(code, port=proxy.port) as client:
        assert client.process.stdout is not None
        assert any("hello from the other node" in line for line in client.process.stdout)
        proxy.cut()
        client.tell("go on")
        client.wait()
        assert "hello from the gateway's node" in client.text


def test_two_clients_share_the_cluster_and_its_named_actors(outside: Outside) -> None:
    with (
        outside.client("""
            ray.init(namespace="shared")
            @ray.remote(num_cpus=0)
            class Board:
                def __init__(self):
                    self.lines = []
                def write(self, line):
                    self.lines.append(line)
                    return list(self.lines)
            board = Board.options(name="board").remote()
            report(lines=ray.get(board.write.remote("first")))
            command()
        """) as first,
        outside.client("""
            command()
            ray.init(namespace="shared")
            report(lines=ray.get(ray.get_actor("board").write.remote("second")))
        """) as second,
    ):
        assert first.report() == {"lines": ["first"]}
        second.tell("go")
        assert second.report() == {"lines": ["first", "second"]}


# -- who may come ----------------------------------------------------------------------------------------


def refused(environment: dict[str, str], error: str) -> str:
    code = f"""
        try:
            ray.init()
        except {error} as error:
            report(message=str(error))
    """
    with Driver(code, env=environment) as driver:
        return str(driver.report()["message"])


def test_a_wrong_token_is_refused(outside: Outside) -> None:
    message = refused(outside.environment(token="wrong"), "ray.exceptions.AuthenticationError")
    assert "wrong token" in message and 'wrong"' not in message


def test_without_a_token_the_message_says_where_to_put_it(outside: Outside) -> None:
    environment = {**outside.environment(token=""), "SHOAL_AUTH_TOKEN_PATH": "/nonexistent"}
    assert "SHOAL_AUTH_TOKEN" in refused(environment, "ray.exceptions.AuthenticationError")


def test_nobody_at_the_address(outside: Outside) -> None:
    port = free_port()
    message = refused(outside.environment(port=port), "ConnectionError")
    assert f"127.0.0.1:{port}" in message and "gateway" in message


def test_another_port_of_the_cluster_is_not_a_gateway(outside: Outside) -> None:
    gcs_port = int(outside.cluster.address.rpartition(":")[2])
    assert "gateway" in refused(outside.environment(port=gcs_port), "ConnectionError")


@pytest.mark.parametrize("address", ["shoal://", "shoal://host:port", "shoal://host:1/path", "ray://host:10001"])
def test_malformed_addresses(address: str, no_session: None) -> None:
    with pytest.raises(ValueError, match="shoal://host"):
        shoal.init(address)


def test_the_cluster_has_its_own_resources(no_session: None) -> None:
    with pytest.raises(ValueError, match="num_cpus must not be provided"):
        shoal.init("shoal://localhost:1", num_cpus=2)


@pytest.fixture
def no_session() -> Iterator[None]:
    shoal.shutdown()
    yield
    shoal.shutdown()


# -- the connection breaks -------------------------------------------------------------------------------

#: Holds refs of every kind, then uses them after each ``command()``.
BUSY = """
    import numpy as np
    ray.init(logging_level="ERROR")

    @ray.remote(num_cpus=0)
    class Counter:
        def __init__(self):
            self.n = 0
        def add(self):
            self.n += 1
            return self.n
        def hold(self, refs):
            self.refs = refs
        def read(self):
            return ray.get(self.refs[0])

    @ray.remote(num_cpus=0.1)
    def slow(x):
        time.sleep(1)
        return x

    counter = Counter.options(resources={"second": 0.1}).remote()
    small, large = ray.put("small"), ray.put(np.arange(1 << 20))
    ray.get(counter.hold.remote([small]))
    under_way = [slow.remote(i) for i in range(4)]
    report(calls=ray.get(counter.add.remote()))
    while (word := command()) and word != "end":
        fresh = Counter.remote()  # the GCS is asked
        later = [counter.add.remote() for _ in range(100)]
        report(
            small=ray.get(small),
            large=int(ray.get(large).sum()),
            borrowed=ray.get(counter.read.remote()),
            tasks=ray.get(under_way),
            new=ray.get(slow.remote(7)),
            calls=ray.get(later)[-1],
            fresh=ray.get(fresh.add.remote()),
            nodes=len(ray.nodes()),
        )
    ray.shutdown()
    report(ended=True)
"""


def facts(calls: int) -> dict[str, object]:
    whole = (1 << 20) * ((1 << 20) - 1) // 2
    values = {"small": "small", "large": whole, "borrowed": "small", "tasks": [0, 1, 2, 3], "new": 7}
    return {**values, "calls": calls, "fresh": 1, "nodes": 2}


def test_all_refs_are_valid_after_the_connection_was_cut(outside: Outside) -> None:
    with TcpProxy(outside.port) as proxy, outside.client(BUSY, port=proxy.port) as client:
        assert client.report() == {"calls": 1}
        for round_number in range(1, 4):
            proxy.refuse()
            client.tell("use")
            proxy.heal()
            assert client.report() == facts(1 + 100 * round_number)
        assert proxy.accepted >= 4
        client.tell("end")
        assert client.report() == {"ended": True}


def test_a_connection_that_breaks_all_the_time_loses_nothing(outside: Outside) -> None:
    with TcpProxy(outside.port) as proxy, outside.client(BUSY, port=proxy.port) as client:
        assert client.report() == {"calls": 1}
        proxy.cut_after(300_000)
        for round_number in range(1, 3):
            client.tell("use")
            assert client.report() == facts(1 + 100 * round_number)
        assert proxy.accepted > 5


def test_a_network_that_swallows_everything_is_noticed(outside: Outside) -> None:
    """Both sides hear nothing for a while, and nobody closes anything."""
    with TcpProxy(outside.port) as proxy, outside.client(BUSY, port=proxy.port) as client:
        assert client.report() == {"calls": 1}
        proxy.hold()
        client.tell("use")
        # The client gives the connection up, and tries another one.
        eventually(lambda: proxy.accepted > 1, "the client tries again", 40)
        proxy.heal()
        assert client.report() == facts(101)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_cut_of_sixty_seconds(outside: Outside) -> None:
    with ProcessCluster() as cluster:
        patient = start(cluster, 90.0)
        with TcpProxy(patient.port) as proxy, patient.client(BUSY, port=proxy.port) as client:
            assert client.report() == {"calls": 1}
            proxy.refuse()
            client.tell("use")
            assert select.select([client.process.stdout], [], [], 60)[0] == [], "it only stalls"
            proxy.heal()
            assert client.report() == facts(101)


def test_after_a_cut_longer_than_the_grace_everything_fails_with_a_clear_error(impatient: Outside) -> None:
    code = """
        ray.init(logging_level="CRITICAL")
        ref, pending = ray.put(1), ray.remote(lambda s: time.sleep(s)).remote(600)
        report(ready=True)
        try:
            ray.get(pending)
        except ray.exceptions.GatewayLostError as error:
            report(message=str(error))
        for call in (lambda: ray.get(ray.remote(lambda: 0).remote()), lambda: ray.put(b"x" * 1_000_000), ray.nodes):
            try:
                call()
                report(error="none")
            except ConnectionError as error:
                report(error=type(error).__name__)
        ray.shutdown()
        ray.init(sys.argv[1], logging_level="CRITICAL")
        report(again=ray.get(ray.remote(lambda: 0).remote()))
    """
    with TcpProxy(impatient.port) as proxy:
        address = f"shoal://127.0.0.1:{impatient.port}"
        with impatient.client(code, address, port=proxy.port) as client:
            assert client.report() == {"ready": True}
            proxy.refuse()
            message = client.report()["message"]
            assert f"shoal://127.0.0.1:{proxy.port}" in message and "no connection for 2 s" in message
            assert [client.report() for _ in range(3)] == [{"error": "GatewayLostError"}] * 3
            assert client.report() == {"again": 0}


# -- a session is a job ----------------------------------------------------------------------------------

WITH_ACTOR = """
    ray.init(logging_level="ERROR")
    @ray.remote(num_cpus=0)
    class Sleeper:
        def pid(self):
            return os.getpid()
    sleeper = Sleeper.remote()
    report(pid=ray.get(sleeper.pid.remote()))
    command()
"""


def test_a_client_that_ends_takes_its_job_along_at_once(outside: Outside) -> None:
    """Although the gateway would wait a minute for one that is cut off."""
    with outside.client(WITH_ACTOR) as client:
        pid = client.report()["pid"]
        client.tell("end")
        client.process.wait(30)
        eventually(lambda: not alive(pid), "the actor has ended", 10)


def test_a_client_that_is_killed_loses_its_job_after_the_grace(impatient: Outside) -> None:
    with impatient.client(WITH_ACTOR) as client:
        pid = client.report()["pid"]
        client.process.kill()
        eventually(lambda: not alive(pid), "the actor has ended", 15)


def test_a_forked_child_does_not_disturb_its_parents_session(outside: Outside) -> None:
    output = outside.run("""
        import multiprocessing, warnings
        warnings.simplefilter("ignore")
        ray.init()
        ref = ray.put(5)
        child = multiprocessing.get_context("fork").Process(target=lambda: None)
        child.start()
        child.join()
        print(child.exitcode, ray.get(ref), ray.get(ray.remote(lambda x: x + 1).remote(ref)))
    """)
    assert output.splitlines() == ["0 5 6"]


def test_a_client_leaves_no_files_behind(outside: Outside) -> None:
    sockets = outside.node.session_dir / "sockets"
    before = set(sockets.glob("c-*"))
    output = outside.run("""
        import pathlib
        ray.init()
        root = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"shoal-{os.getuid()}"
        during = set(root.glob(f"session_*_{os.getpid()}_*"))
        ray.shutdown()
        print(len(during), len(set(root.glob(f"session_*_{os.getpid()}_*"))))
    """)
    assert output.splitlines() == ["1 0"]
    eventually(lambda: set(sockets.glob("c-*")) <= before, "its address is given up")


def test_a_gateway_that_stops_tells_its_clients() -> None:
    code = """
        ray.init(logging_level="CRITICAL")
        report(ready=True)
        try:
            ray.get(ray.remote(lambda s: time.sleep(s)).remote(600))
        except ray.exceptions.GatewayLostError as error:
            report(message=str(error))
    """
    with ProcessCluster() as cluster:
        place = start(cluster, 60.0)
        with place.client(code) as client:
            assert client.report() == {"ready": True}
            place.node.end()
            assert "the node of the gateway stops" in client.report()["message"]


def test_modules_next_to_the_script_travel(outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("project")
    (directory / "helpers.py").write_text(
        "import shapes.area\nFACTOR = 3\n\nclass Failure(Exception):\n    pass\n\n"
        "def scale(x):\n    if x < 0:\n        raise Failure('negative')\n    return FACTOR * shapes.area.square(x)\n"
    )
    (directory / "shapes").mkdir()
    (directory / "shapes" / "__init__.py").write_text("")
    (directory / "shapes" / "area.py").write_text(
        "from dataclasses import dataclass\n\n"
        "@dataclass\nclass Square:\n    side: int\n\n"
        "def square(x):\n    return x * x\n"
    )
    (directory / "main.py").write_text(
        "import shoal as ray\nimport helpers\nfrom shapes.area import Square\nray.init()\n"
        "@ray.remote\ndef work(s):\n    return type(s)(helpers.scale(s.side))\n"
        "print(ray.get(work.remote(Square(2))) == Square(12), ray.get(ray.remote(helpers.scale).remote(1)))\n"
        "@ray.remote(retry_exceptions=[helpers.Failure], max_retries=3)\ndef flaky(c):\n"
        "    if ray.get(c.add.remote()) < 3:\n        helpers.scale(-1)\n    return 'retried'\n"
        "@ray.remote(num_cpus=0)\nclass Count:\n    n = 0\n    def add(self):\n        self.n += 1\n"
        "        return self.n\n"
        "print(ray.get(flaky.remote(Count.remote())))\n"
        "try:\n    ray.get(work.remote(Square(-1)))\n"
        "except helpers.Failure as error:\n    print('caught', error.cause)\n"
    )
    done = subprocess.run(
        [sys.executable, directory / "main.py"],
        env={**os.environ, **outside.environment()},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["True 3", "retried", "caught negative"]


def test_mutual_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the client to the gateway, inside, and through to the GCS; who has no certificate does not get in."""
    tls = Authority(tmp_path / "authority").issue()
    code = """
        ray.init()

        @ray.remote(num_cpus=0, resources={"second": 0.1})
        class Echo:
            def same(self, value):
                return value
            def owner(self, refs):
                return ray.get(refs[0])

        echo = Echo.remote()
        data = os.urandom(3_000_000)
        report(same=ray.get(echo.same.remote(data)) == data, owned=ray.get(echo.owner.remote([ray.put(7)])))
    """
    for variable, path in zip(VARIABLES, (tls.ca, tls.cert, tls.key), strict=True):
        monkeypatch.setenv(variable, str(path))
    with ProcessCluster() as cluster:
        outside = start(cluster, 60.0)
        with outside.client(code) as client:
            assert client.report() == {"same": True, "owned": 7}
        for variable in VARIABLES:
            monkeypatch.delenv(variable)
        assert "gateway" in refused(outside.environment(), "ConnectionError")
