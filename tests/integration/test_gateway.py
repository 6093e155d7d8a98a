"""Clients outside of the cluster, through the gateway of one of two nodes, as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.clusters import ProcessCluster
from support.drivers import Driver
from support.outside import Outside, start_gateway
from support.servers import free_port
from support.tcp_proxy import TcpProxy

import shoal
from shoal_common.tls import VARIABLES

# -- the same API, the same errors -----------------------------------------------------------------------


def test_tasks_and_nested_tasks(outside: Outside) -> None:
    output = outside.run("""
        ray.init(logging_level="ERROR")

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


def test_other_ways_to_connect(outside: Outside) -> None:
    output = outside.run("""
        import os
        import shoal.util
        address = os.environ["SHOAL_ADDRESS"].removeprefix("shoal://")
        with ray.client(address).namespace("built").connect() as context:
            print(type(context).__name__, ray.get_runtime_context().namespace)
        print(ray.is_initialized())
        context = shoal.util.connect(address, namespace="connected")
        print(context["address"] == "shoal://" + address, ray.get_runtime_context().namespace)
        shoal.util.disconnect()
        print(ray.is_initialized())
    """)
    lines = [line for line in output.splitlines() if "Connecting to the Shoal cluster" not in line]
    assert lines == ["Context built", "False", "True connected", "False"]


def test_actors_on_both_nodes(outside: Outside) -> None:
    output = outside.run("""
        ray.init(namespace="ns", logging_level="ERROR")

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
        ray.init(logging_level="ERROR")

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
        ray.init(logging_level="ERROR")
        array = np.arange(40 << 17, dtype=np.float64)  # 40 MiB in a store of 32
        ref = ray.put(array)
        print((ray.get(ref) == array).all(), ray.get(ray.remote(lambda a: float(a[-1])).remote(ref)) == array[-1])
    """)
    assert output.splitlines() == ["True True"]


def test_references_in_values_and_values_owned_outside(outside: Outside) -> None:
    output = outside.run("""
        ray.init(logging_level="ERROR")

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
        ray.init(logging_level="ERROR")
        refs = [ray.put(np.full(4 << 20, i, dtype=np.uint8)) for i in range(100)]  # 400 MiB in a store of 256
        print(all((ray.get(ref) == i).all() for i, ref in enumerate(refs)))
    """)
    assert output.splitlines() == ["True"]


def test_errors_are_those_of_a_driver_inside(outside: Outside) -> None:
    output = outside.run("""
        ray.init(logging_level="ERROR")

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
            ray.init(namespace="shared", logging_level="ERROR")
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
            ray.init(namespace="shared", logging_level="ERROR")
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
            ray.init(logging_level="ERROR")
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


# -- what they bring along ---------------------------------------------------------------------------------


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
        "import shoal as ray\nimport helpers\nfrom shapes.area import Square\nray.init(logging_level='ERROR')\n"
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
        ray.init(logging_level="ERROR")

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
        outside = start_gateway(cluster, 60.0)
        with outside.client(code) as client:
            assert client.report() == {"same": True, "owned": 7}
        for variable in VARIABLES:
            monkeypatch.delenv(variable)
        assert "gateway" in refused(outside.environment(), "ConnectionError")
