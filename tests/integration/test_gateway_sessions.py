"""Sessions of clients at their gateway: they outlive a connection, and end with the client."""

from __future__ import annotations

import select

from support.clusters import ProcessCluster
from support.loopback import CUT_S
from support.outside import Outside, start_gateway
from support.processes import PATIENCE_S, alive, eventually
from support.servers import free_port
from support.tcp_proxy import TcpProxy

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
        eventually(lambda: proxy.accepted > 1, "the client tries again")
        proxy.heal()
        assert client.report() == facts(101)


def test_a_long_cut_only_stalls(outside: Outside) -> None:
    with TcpProxy(outside.port) as proxy, outside.client(BUSY, port=proxy.port) as client:
        assert client.report() == {"calls": 1}
        proxy.refuse()
        client.tell("use")
        assert select.select([client.process.stdout], [], [], CUT_S)[0] == []
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
    """Although the gateway would wait for an hour for one that is cut off."""
    with outside.client(WITH_ACTOR) as client:
        pid = client.report()["pid"]
        client.tell("end")
        client.process.wait(PATIENCE_S)
        eventually(lambda: not alive(pid), "the actor has ended")


def test_a_client_that_is_killed_loses_its_job_after_the_grace(impatient: Outside) -> None:
    with impatient.client(WITH_ACTOR) as client:
        pid = client.report()["pid"]
        client.process.kill()
        eventually(lambda: not alive(pid), "the actor has ended")


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
    assert [line for line in output.splitlines() if "INFO" not in line] == ["0 5 6"]


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
    assert [line for line in output.splitlines() if "INFO" not in line] == ["1 0"]
    eventually(lambda: set(sockets.glob("c-*")) <= before, "its address is given up")


#: A named job that begins again when its gateway is gone.
STUBBORN = """
    def begin():
        context = ray.init(sys.argv[1], job="stubborn", attach=True, logging_level="CRITICAL")
        return context.attached, context.address_info["address"].rpartition(":")[2]

    @ray.remote(num_cpus=0, resources={"second": 0.1})
    class Runs:
        def __init__(self):
            self.numbers = []
        def add(self, number):
            self.numbers.append(number)
            return self.numbers

    @ray.remote(num_cpus=0, resources={"second": 0.1})
    def work(number):
        return ray.get(ray.get_actor("runs").add.remote(number))

    attached, port = begin()
    runs = Runs.options(name="runs", get_if_exists=True).remote()
    told = ray.get(work.options(key="one").remote(1))
    ray.put({"begun": 1}, name="notes")
    report(attached=attached, port=int(port), runs=told)
    while command():
        try:
            ray.get(ray.remote(lambda: time.sleep(600)).remote())
        except ray.exceptions.GatewayLostError as error:
            message = str(error)
        ray.shutdown()
        attached, port = begin()
        told = ray.get([work.options(key=key).remote(number) for key, number in (("one", 1), (port, 2))])
        notes = ray.get(ray.get_object("notes"))
        report(attached=attached, port=int(port), runs=told[1], notes=notes, message=message)
    ray.shutdown()
"""


def test_a_named_job_goes_on_through_another_gateway() -> None:
    """That of the first node is killed, the other one is stopped when the first is there again: no task with a key is
    run again, and what the driver is told names the way."""
    with ProcessCluster() as cluster:
        place = start_gateway(cluster, 60.0)
        other = free_port()
        second = cluster.add_node(cpus=0, gateway_port=other, gateway_grace_s=60.0)
        addresses = f"shoal://127.0.0.1:{place.port},127.0.0.1:{other}"
        with place.client(STUBBORN, addresses) as client:
            assert client.report() == {"attached": False, "port": place.port, "runs": [1]}
            client.tell("on")
            place.node.kill()
            first = client.report()
            assert "shoal.shutdown()" in first["message"] and "job='stubborn', attach=True" in first["message"]
            assert f"127.0.0.1:{place.port} is over" in first["message"]
            del first["message"]
            assert first == {"attached": True, "port": other, "runs": [1, 2], "notes": {"begun": 1}}
            cluster.add_node(cpus=0, gateway_port=place.port, gateway_grace_s=60.0)
            client.tell("on")
            second.end()
            last = client.report()
            assert "the node of the gateway stops" in last["message"]
            assert (last["attached"], last["port"], last["runs"]) == (True, place.port, [1, 2, 2])
            client.tell("")
            assert client.wait() == 0, client.text
