"""What workers print reaches the driver: all of it, once, under the right name; and how worker processes look."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
from support.drivers import Driver
from support.processes import PATIENCE_S, command, eventually

import shoal

#: ``(name pid=123) text``
PREFIXED = re.compile(r"^\((?P<name>.+?) pid=(?P<pid>\d+)\) (?P<text>.*)$")


def run(code: str, **init: object) -> subprocess.CompletedProcess[str]:
    """A user's program to its end, both streams apart."""
    arguments = {"num_cpus": 2, "logging_level": "ERROR", **init}
    program = "import os, subprocess, sys, time\nimport shoal as ray\n"
    program += f"ray.init(**{arguments!r})\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done


def lines(text: str) -> list[tuple[str, str]]:
    """(name, text) of each prefixed line."""
    return [(match["name"], match["text"]) for line in text.splitlines() if (match := PREFIXED.match(line))]


def test_a_session_says_once_where_its_cluster_is():
    say = {"logging_level": "info", "logging_format": "SAID %(levelname)s %(message)s"}
    done = run(
        f"""
        address = ray.get_runtime_context().gcs_address
        print(address)
        other = "import shoal; shoal.init(" + repr(address) + ", **{say})"
        subprocess.run([sys.executable, "-c", other], check=True)
        """,
        **say,
    )
    address = done.stdout.strip()
    # (On a busy machine there may be a warning that the head takes its time to end.)
    assert [line for line in done.stderr.splitlines() if " INFO " in line] == [
        f"SAID INFO Started a Shoal cluster on this machine, at {address}.",
        f"SAID INFO Connecting to the Shoal cluster at {address}.",
    ]


def test_all_processes_of_a_job_log_as_it_says():
    program = """
        import logging
        import shoal as ray
        from shoal import LoggingConfig

        config = LoggingConfig(encoding="JSON", log_level="WARNING", additional_log_standard_attrs=["name"])
        ray.init(num_cpus=1, logging_config=config)

        @ray.remote
        def task():
            logging.getLogger("mine").info("not shown")
            logging.getLogger("mine").warning("by %s", "task", extra={"step": 3})
            return ray.get_runtime_context().get_task_id()

        @ray.remote(name="a")
        class Actor:
            def call(self):
                logging.getLogger("mine").warning("by actor")
                return ray.get_runtime_context().get_actor_id()

        logging.getLogger("mine").warning("by driver")
        print(ray.get(task.remote()), ray.get(Actor.remote().call.remote()), ray.get_runtime_context().get_job_id())
        ray.shutdown()
        print(logging.getLogger().handlers)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    ids, handlers = done.stdout.splitlines()
    task_id, actor_id, job_id = ids.split()
    found = {}
    for line in done.stderr.splitlines():
        if '"by ' in line:  # of workers with the prefix
            fields = json.loads(line[line.index("{") :])
            found[fields["message"]] = fields
    assert found.keys() == {"by task", "by actor", "by driver"}
    assert {(fields["job_id"], fields["levelname"], fields["name"]) for fields in found.values()} == {
        (job_id, "WARNING", "mine")
    }
    task = found["by task"]
    assert (task["task_id"], task["task_name"], task["step"]) == (task_id, "task", 3)
    assert (found["by actor"]["actor_id"], found["by actor"]["actor_name"]) == (actor_id, "a")
    assert "task_id" not in found["by driver"]
    assert handlers == "[]"
    assert "not shown" not in done.stderr


def test_prefix_names_the_function_and_its_process():
    done = run("""
        @ray.remote
        def talk():
            print("hello")
            return os.getpid()

        print("PID", ray.get(talk.remote()))
    """)
    [line] = [line for line in done.stdout.splitlines() if "hello" in line]
    [pid] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("PID")]
    assert line == f"(talk pid={pid}) hello"


def test_output_is_not_shown_when_not_wanted():
    done = run(
        """
        @ray.remote
        def talk():
            print("hello")

        ray.get(talk.remote())
        print("done")
    """,
        log_to_driver=False,
    )
    assert done.stdout == "done\n"


def test_streams_stay_apart():
    done = run("""
        @ray.remote
        def talk():
            print("to stdout")
            print("to stderr", file=sys.stderr)

        ray.get(talk.remote())
    """)
    assert lines(done.stdout) == [("talk", "to stdout")]
    assert lines(done.stderr) == [("talk", "to stderr")]


def test_every_line_once_and_in_order():
    done = run("""
        @ray.remote
        def talk():
            for number in range(5000):
                print("line", number)

        ray.get(talk.remote())
    """)
    assert lines(done.stdout) == [("talk", f"line {number}") for number in range(5000)]


def test_many_different_lines_all_arrive():
    done = run("""
        import itertools
        @ray.remote
        def talk(who):
            for letters in itertools.islice(itertools.product("abcdefghij", repeat=5), 20_000):
                print(who + "".join(letters))
        ray.get([talk.remote(who) for who in "kl"])
    """)
    said = [text for _, text in lines(done.stdout)]
    assert len(said) == len(set(said)) == 40_000
    assert [text for text in said if text[0] == "k"] == sorted(text for text in said if text[0] == "k")


def test_a_line_without_its_end_is_shown_while_the_task_goes_on():
    program = """
        @ray.remote
        def ask(path):
            print("first\\nwell", end="?")
            while not os.path.exists(path):
                time.sleep(0.01)
            print(" yes")
            print("last", end="")
        import tempfile
        with tempfile.TemporaryDirectory() as directory:
            pending = ask.remote(directory + "/answer")
            report(path=directory + "/answer")
            ray.get(pending)
    """
    with Driver("ray.init(num_cpus=1, logging_level='ERROR')\n" + textwrap.dedent(program)) as driver:
        answer = driver.report()["path"]
        shown = []
        while "well?" not in shown:
            shown += [text for _, text in lines(driver.line())]
        open(answer, "x").close()
        assert driver.wait() == 0
        assert [*shown, *(text for _, text in lines(driver.text))] == ["first", "well?", " yes", "last"]


def test_the_name_of_the_next_task_is_no_part_of_a_line_that_was_left_open():
    done = run(
        """
        @ray.remote
        def first():
            print("open", end="")
        @ray.remote
        def second():
            print("closed")
        ray.get(first.remote())
        ray.get(second.remote())
    """,
        num_cpus=1,
    )
    assert lines(done.stdout) == [("first", "open"), ("second", "closed")]


def test_name_follows_the_task():
    done = run(
        """
        @ray.remote
        def first():
            print("of the first")

        @ray.remote
        def second():
            print("of the second")

        for _ in range(3):
            ray.get(first.remote())
            ray.get(second.remote())
        """,
        num_cpus=1,
    )
    assert {("first", "of the first"), ("second", "of the second")} == set(lines(done.stdout))


def test_actors_and_their_threads():
    done = run("""
        import threading

        @ray.remote
        class Plain:
            def __init__(self):
                print("constructed")

            def talk(self):
                print("from the call")
                thread = threading.Thread(target=print, args=("from a thread",))
                thread.start()
                thread.join()

        @ray.remote
        class Async:
            async def talk(self):
                print("from a coroutine")

        actors = [Plain.remote(), Async.remote()]
        ray.get([actor.talk.remote() for actor in actors])
    """)
    assert set(lines(done.stdout)) == {
        ("Plain", "constructed"),
        ("Plain", "from the call"),
        ("Plain", "from a thread"),
        ("Async", "from a coroutine"),
    }


def test_below_python():
    """What C code, ``os.write`` and child processes print, too."""
    done = run("""
        @ray.remote
        def talk():
            os.write(1, b"by os.write\\n")
            os.write(2, b"by os.write to stderr\\n")
            subprocess.run(["echo", "by a child"], check=True)
            os.system("echo by a shell 1>&2")

        ray.get(talk.remote())
    """)
    assert [text for _, text in lines(done.stdout)] == ["by os.write", "by a child"]
    assert [text for _, text in lines(done.stderr)] == ["by os.write to stderr", "by a shell"]


@pytest.mark.parametrize("end", ["pass", "ray.shutdown()", "sys.exit(0)"])
def test_last_words(end):
    done = run(f"""
        @ray.remote
        def talk(number):
            print("last words of", number)

        ray.get([talk.remote(number) for number in range(10)])
        {end}
    """)
    # From several processes: the numbers are left out of the comparison, so repeats are counted, not shown.
    assert "last words of" in done.stdout


def test_last_words_of_a_worker_that_dies():
    done = run("""
        @ray.remote(max_retries=0)
        def talk():
            print("before the end")
            print("no newline", end="", flush=True)
            os._exit(1)

        try:
            ray.get(talk.remote())
        except ray.exceptions.WorkerCrashedError:
            print("CAUGHT")
    """)
    assert ("talk", "before the end") in lines(done.stdout)
    assert ("talk", "no newline") in lines(done.stdout)
    assert "CAUGHT" in done.stdout


def test_traceback_of_a_fatal_signal_is_shown():
    done = run("""
        @ray.remote(max_retries=0)
        def crash():
            import ctypes
            ctypes.string_at(0)

        try:
            ray.get(crash.remote())
        except ray.exceptions.WorkerCrashedError:
            pass
    """)
    assert "Segmentation fault" in done.stderr
    assert "crash" in done.stderr


def test_unhandled_exception_in_a_thread_is_shown():
    done = run("""
        import threading

        @ray.remote
        def f():
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()

        ray.get(f.remote())
    """)
    assert any(name == "f" and "ZeroDivisionError" in text for name, text in lines(done.stderr))


def test_repeats_of_several_processes_are_counted():
    done = run(
        """
        @ray.remote
        class Talker:
            def talk(self, number):
                print(f"the same but for {number}")

        talkers = [Talker.remote() for _ in range(4)]
        ray.get([talker.talk.remote(number) for number, talker in enumerate(talkers)])
        """,
        num_cpus=4,
    )
    found = [text for _, text in lines(done.stdout)]
    assert len(found) == 2
    assert re.fullmatch(r"the same but for \d", found[0])
    assert re.fullmatch(r"the same but for \d \[repeated 3x across cluster\]", found[1])


def test_odd_bytes():
    done = run("""
        @ray.remote
        def talk():
            os.write(1, b"\\xff\\xfe broken\\n")
            print("grüße, 世界")
            print("a\\tb\\r")
            print()
            print("x" * 200_000)

        ray.get(talk.remote())
    """)
    texts = [text for _, text in lines(done.stdout)]
    assert any("broken" in text for text in texts)
    assert "grüße, 世界" in texts
    assert "a\tb" in texts
    assert sum(text.count("x") for text in texts) == 200_000


SECOND_DRIVER = """
import sys
import shoal as ray

ray.init(address=sys.argv[1], logging_level="ERROR")

@ray.remote
def theirs():
    print("for the second driver")

ray.get(theirs.remote())
"""


def test_output_of_another_driver_stays_there():
    done = run(f"""
        @ray.remote
        def mine():
            print("for the first driver")

        ray.get(mine.remote())
        other = subprocess.run(
            [sys.executable, "-c", {SECOND_DRIVER!r}, ray.get_runtime_context().gcs_address],
            capture_output=True, text=True, timeout={PATIENCE_S},
        )
        print("OTHER", repr(other.stdout), other.stderr)
    """)
    assert lines(done.stdout) == [("mine", "for the first driver")]
    [other] = [line for line in done.stdout.splitlines() if line.startswith("OTHER")]
    assert "(theirs pid=" in other
    assert "for the second driver" in other
    assert "first driver" not in other


def test_driver_that_has_closed_its_output():
    """A pipe that nobody reads must not hurt the program."""
    code = """
import os, sys, shoal as ray
ray.init(num_cpus=1, logging_level="ERROR")

@ray.remote
def talk():
    print("into the void")
    return 1

os.close(1)
assert ray.get([talk.remote() for _ in range(10)]) == [1] * 10
ray.shutdown()
os.write(2, b"WELL")
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "WELL" in done.stderr


# --- what a task does to the streams ---------------------------------------------------------------------------------


SPOILERS = {
    "close": "{0}.close()",
    "close the buffer": "{0}.buffer.close()",
    "detach": "{0}.detach()",
    "replace": "{0} = open(os.devnull, 'w')",
    "replace by a closed one": "{0} = open(os.devnull, 'w'); {0}.close()",
    "replace by nothing": "{0} = None",
    "close the descriptor": "os.close({1})",
    "close the stream and the descriptor": "{0}.close(); os.close({1})",
    "detach, and close the descriptor": "{0}.detach(); os.close({1})",
    # Looked for from time to time only.
    "redirect the descriptor": "os.dup2(os.open(os.devnull, os.O_WRONLY), {1}); time.sleep(0.05)",
}


@pytest.mark.parametrize(("stream", "fd"), [("stdout", 1), ("stderr", 2)])
def test_a_task_spoils_the_streams_for_itself_only(stream, fd):
    done = run(
        f"""
        @ray.remote
        def spoil(how):
            exec("import os, sys, time; " + how)
            return os.getpid()

        @ray.remote
        def talk(text):
            print(text, file=sys.{stream})
            return os.getpid()

        pids = set()
        for name, how in {SPOILERS!r}.items():
            pids.add(ray.get(spoil.remote(how.format("sys.{stream}", {fd}))))
            pids.add(ray.get(talk.remote("after " + name)))
        assert len(pids) == 1, pids
        """,
        num_cpus=1,
    )
    said = [(name, text) for name, text in lines(getattr(done, stream)) if text.startswith("after")]
    assert said == [("talk", f"after {name}") for name in SPOILERS]


def test_an_actor_keeps_what_it_made_of_the_streams():
    done = run("""
        import io

        @ray.remote
        class Redirected:
            def __init__(self):
                sys.stdout = io.StringIO()

            def talk(self):
                print("kept")

            def said(self):
                return sys.stdout.getvalue()

        actor = Redirected.remote()
        ray.get([actor.talk.remote() for _ in range(2)])
        assert ray.get(actor.said.remote()) == "kept\\nkept\\n"
    """)
    assert "kept" not in done.stdout


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("return f'Numbered({self.number})'", "Numbered(3)"),
        ("return 'two\\nlines'", "two lines"),
        ("raise ValueError('broken')", "Named"),
        ("return self.missing", "Named"),
        ("return 7", "Named"),
    ],
)
def test_prefix_is_what_an_actors_repr_says(body, name):
    done = run(f"""
        @ray.remote
        class Named:
            def __init__(self):
                print("begins")
                self.number = 3

            def __repr__(self):
                {body}

            def talk(self):
                print("hello")

        ray.get(Named.remote().talk.remote())
    """)
    assert lines(done.stdout) == [("Named", "begins"), (name, "hello")]


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
class TestProcesses:
    def test_title_is_the_tasks_name(self):
        @shoal.remote
        def my_function():
            return command(os.getpid())

        assert shoal.get(my_function.remote()) == "shoal::my_function"

    def test_title_is_the_tasks_name_option(self):
        @shoal.remote
        def my_function():
            return command(os.getpid())

        assert shoal.get(my_function.options(name="my name").remote()) == "shoal::my name"
        assert shoal.get(my_function.options(name="my\0name", max_retries=0).remote()) == "shoal::my name"

    @pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}, {"concurrency_groups": {"io": 1}}], ids=repr)
    def test_title_is_the_actors_class_and_method(self, options):
        class MyActor:
            def __init__(self):
                self.first = command(os.getpid())

            def title(self):
                return command(os.getpid())

            def title_of_the_constructor(self):
                return self.first

        actor = shoal.remote(**options)(MyActor).remote() if options else shoal.remote(MyActor).remote()
        assert shoal.get(actor.title_of_the_constructor.remote()) == "shoal::MyActor.__init__"
        assert shoal.get(actor.title.remote()) == "shoal::MyActor.title"
        assert shoal.get(actor.title.options(name="my name").remote()) == "shoal::my name"

    def test_title_of_an_async_actor(self):
        @shoal.remote
        class MyActor:
            async def title(self):
                return command(os.getpid()), shoal.get_runtime_context().get_task_name()

        actor = MyActor.remote()
        assert shoal.get(actor.title.remote()) == ("shoal::MyActor.title", "MyActor.title")
        assert shoal.get(actor.title.options(name="my name").remote()) == ("shoal::my name", "my name")

    def test_title_while_nothing_runs(self):
        @shoal.remote
        class MyActor:
            def pid(self):
                return os.getpid()

        @shoal.remote
        def my_pid():
            return os.getpid()

        actor = MyActor.remote()
        pid, other = shoal.get([actor.pid.remote(), my_pid.remote()])
        eventually(lambda: command(pid) == "shoal::MyActor", "the actor is idle")
        eventually(lambda: command(other) == "shoal::IDLE", "the worker is idle")

    def test_title_of_an_idle_worker(self):
        @shoal.remote(num_cpus=0)
        class Short:
            def pid(self):
                return os.getpid()

        # A fresh worker that waits for work is named so.
        parent = os.getpid()
        shoal.get(Short.remote().pid.remote())

        def idle():
            from support.processes import descendants

            return "shoal::IDLE" in {command(pid) for pid in descendants(parent)}

        eventually(idle, "an idle worker stands ready")

    @pytest.mark.parametrize(("cpus", "threads"), [(1, "1"), (2, "2"), (0.5, "1"), (0, "1")])
    def test_threads_of_numeric_libraries(self, cpus, threads):
        @shoal.remote(num_cpus=cpus)
        def limit():
            return os.environ["OMP_NUM_THREADS"]

        assert shoal.get(limit.remote()) == threads

    def test_threads_of_an_actors_libraries(self):
        @shoal.remote(num_cpus=2)
        class A:
            def limit(self):
                return os.environ["OMP_NUM_THREADS"]

        assert shoal.get(A.remote().limit.remote()) == "2"


def test_users_own_thread_limit_is_left_alone(monkeypatch, no_cluster):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    shoal.init(num_cpus=1, logging_level="ERROR")

    @shoal.remote
    def limit():
        return os.environ["OMP_NUM_THREADS"]

    assert shoal.get(limit.remote()) == "7"


def test_no_secret_shows(no_cluster):
    """The token is in no command line and no environment of any process, and in no file but those of its user."""
    from pathlib import Path

    from support.processes import descendants

    context = shoal.init(num_cpus=2, logging_level="ERROR")

    @shoal.remote
    def pid():
        return os.getpid(), {name: value for name, value in os.environ.items() if "TOKEN" in name}

    seen, variables = shoal.get(pid.remote())
    assert variables == {}
    token = json.loads((Path(context.address_info["session_dir"]) / "cluster.json").read_text())["token"]
    processes = descendants(os.getpid())
    assert seen in processes
    for process in processes:
        assert token not in command(process)
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        assert token.encode() not in environment
    for path in Path(context.address_info["session_dir"]).rglob("*"):
        if path.is_file() and path.name in ("cluster.json", "auth_token"):
            assert path.stat().st_mode & 0o077 == 0, "it is its user's alone"
        elif path.is_file():
            assert token.encode() not in path.read_bytes(), path


def test_lines_of_another_cluster_on_the_same_bus_are_not_shown():
    """Jobs are numbered from 1 in each cluster."""
    program = """
        from shoal import _current
        from shoal_common.bus import subjects
        from shoal_proto.v1 import events_pb2

        ray.init(num_cpus=1)
        core = _current.current()
        for cluster, line in (("another", "theirs"), ("embedded", "ours")):
            batch = events_pb2.LogBatch(job_id=core.job_id, pid=1, name="f", lines=[line])
            subject = subjects.log(cluster, core.job_id, b"n" * 16, b"w" * 16)
            core.gcs.events.publish(subject, batch.SerializeToString())
        ray.shutdown()
    """
    with Driver(program) as driver:
        assert driver.wait() == 0, driver.text
    assert "ours" in driver.text
    assert "theirs" not in driver.text


def test_what_blocks_an_event_loop_or_runs_tasks_one_by_one_is_told():
    done = run(
        """
        @ray.remote
        def nap():
            time.sleep(0.1)

        @ray.remote
        class A:
            async def m(self):
                ray.get(nap.remote())

        for _ in range(12):
            ray.get(nap.remote())
        ray.get(A.remote().m.remote())
        """,
        logging_level="WARNING",
    )
    assert done.stderr.count("times in a row for the task that was submitted just before") == 1
    assert "get() at <string>:" in done.stderr
    assert [text for _, text in lines(done.stdout + done.stderr) if text.startswith("A.m waits in get()")]
