"""Used as people use it: scripts, -c, stdin, modules, threads, asyncio, notebooks; and what the workers print."""

from __future__ import annotations

import json
import sys

import pytest
from e2e.compat.target import MODULE, QUIET, better_than_ray, ray, run, script, submodule

PROGRAM = """
    from dataclasses import dataclass

    FACTOR = 3

    @dataclass
    class Point:
        x: int

    class Problem(Exception):
        pass

    def helper(x):
        return x * FACTOR

    @ray.remote
    def task(point):
        return Point(helper(point.x))

    @ray.remote
    class Counter:
        def __init__(self):
            self.n = 0

        def inc(self):
            self.n += 1
            return self.n

    @ray.remote
    def fail():
        raise Problem("mine")

    def main():
        ray.init(num_cpus=2, **QUIET)
        assert ray.get(task.remote(Point(2))) == Point(6)
        counter = Counter.remote()
        assert ray.get([counter.inc.remote() for _ in range(3)]) == [1, 2, 3]
        try:
            ray.get(fail.remote())
        except Problem as problem:
            assert isinstance(problem.cause, Problem)
        else:
            raise AssertionError("no error")
        print("ALL WELL")
"""


def test_dash_c():
    assert "ALL WELL" in run("-c", script(PROGRAM) + "\nmain()\n")


def test_standard_input():
    assert "ALL WELL" in run("-", input=script(PROGRAM) + "\nmain()\n")


def test_script(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(script(PROGRAM) + '\nif __name__ == "__main__":\n    main()\n')
    assert "ALL WELL" in run(str(path))


def test_script_from_another_directory(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "code" / "program.py"
    path.write_text(script(PROGRAM) + '\nif __name__ == "__main__":\n    main()\n')
    assert "ALL WELL" in run(str(path), cwd=tmp_path / "elsewhere")


def test_script_with_modules_beside_it(tmp_path):
    (tmp_path / "library.py").write_text(script(PROGRAM))
    (tmp_path / "program.py").write_text("import library\nlibrary.main()\n")
    assert "ALL WELL" in run(str(tmp_path / "program.py"), cwd="/")


def test_package_run_with_dash_m(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "library.py").write_text(script(PROGRAM))
    (package / "__main__.py").write_text("from package import library\nlibrary.main()\n")
    assert "ALL WELL" in run("-m", "package", cwd=tmp_path)


def test_functions_redefined_in_one_session():
    # As in a notebook, where a cell is run again.
    run(
        "-c",
        script("""
            ray.init(num_cpus=1, **QUIET)

            @ray.remote
            def f():
                return 1

            assert ray.get(f.remote()) == 1

            @ray.remote
            def f():
                return 2

            assert ray.get(f.remote()) == 2
        """),
    )


def test_asyncio_program():
    output = run(
        "-c",
        script("""
            import asyncio

            @ray.remote
            def square(x):
                return x * x

            @ray.remote
            class Adder:
                def __init__(self):
                    self.total = 0

                async def add(self, x):
                    self.total += x
                    return self.total

            async def main():
                ray.init(num_cpus=2, **QUIET)
                squares = await asyncio.gather(*[square.remote(i) for i in range(10)])
                adder = Adder.remote()
                for value in squares:
                    total = await adder.add.remote(value)
                for future in asyncio.as_completed([square.remote(i) for i in range(3)]):
                    await future
                try:
                    await asyncio.wait_for(asyncio.shield(square.remote(2)), timeout=60)
                finally:
                    print("TOTAL", total)

            asyncio.run(main())
        """),
    )
    assert "TOTAL 285" in output


def test_threads_of_the_driver():
    output = run(
        "-c",
        script("""
            from concurrent.futures import ThreadPoolExecutor

            ray.init(num_cpus=2, **QUIET)

            @ray.remote
            def square(x):
                return x * x

            @ray.remote
            class Counter:
                def __init__(self):
                    self.n = 0

                def inc(self):
                    self.n += 1
                    return self.n

            counter = Counter.remote()

            def work(i):
                ref = square.remote(i)
                ray.wait([ref])
                ray.get(counter.inc.remote())
                return ray.get(ray.put(ray.get(ref)))

            with ThreadPoolExecutor(8) as pool:
                assert list(pool.map(work, range(100))) == [i * i for i in range(100)]
            print("COUNT", ray.get(counter.inc.remote()))
        """),
    )
    assert "COUNT 101" in output


def test_first_use_from_a_thread():
    output = run(
        "-c",
        script("""
            import threading

            def work():
                ray.init(num_cpus=1, **QUIET)

                @ray.remote
                def f():
                    return "THREADED"

                print(ray.get(f.remote()))

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            ray.shutdown()
        """),
    )
    assert "THREADED" in output


def test_fork_in_the_driver():
    output = run(
        "-c",
        script("""
            import os

            ray.init(num_cpus=1, **QUIET)

            @ray.remote
            def f():
                return 1

            assert ray.get(f.remote()) == 1
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            print("STILL", ray.get(f.remote()))
        """),
    )
    assert "STILL 1" in output


def test_subprocesses_of_the_driver():
    output = run(
        "-c",
        script("""
            import subprocess, sys

            ray.init(num_cpus=1, **QUIET)
            print(subprocess.run([sys.executable, "-c", "print('CHILD')"], capture_output=True, text=True).stdout)
            print(ray.get(ray.put("AFTER")))
        """),
    )
    assert "CHILD" in output
    assert "AFTER" in output


def test_notebook():
    pytest.importorskip("IPython")
    cells = script(PROGRAM)
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {[cells, "main()"]!r}:
    shell.run_cell(cell).raise_error()
"""
    assert "ALL WELL" in run("-c", code)


# --- what the workers print ----------------------------------------------------------------------------------------


def test_output_of_tasks_appears_in_the_driver():
    output = run(
        "-c",
        script("""
            import sys

            ray.init(num_cpus=1, **QUIET)

            @ray.remote
            def talk():
                print("hello from the task")
                print("an error line", file=sys.stderr)

            @ray.remote
            class Talker:
                def talk(self):
                    print("hello from the actor")

            talker = Talker.remote()
            ray.get([talk.remote(), talker.talk.remote()])
            ray.shutdown()
        """),
    )
    lines = output.splitlines()
    assert any("(talk pid=" in line and "hello from the task" in line for line in lines), output
    assert any("(talk pid=" in line and "an error line" in line for line in lines), output
    assert any("(Talker pid=" in line and "hello from the actor" in line for line in lines), output


def test_output_just_before_the_end_is_not_lost():
    output = run(
        "-c",
        script("""
            ray.init(num_cpus=1, **QUIET)

            @ray.remote
            def talk():
                print("last words")

            ray.get(talk.remote())
            ray.shutdown()
        """),
    )
    assert "last words" in output


def test_output_can_be_switched_off():
    output = run(
        "-c",
        script("""
            ray.init(num_cpus=1, log_to_driver=False, **QUIET)

            @ray.remote
            def talk():
                print("hush")

            ray.get(talk.remote())
            ray.shutdown()
        """),
    )
    assert "hush" not in output


def test_repeated_output_does_not_flood():
    output = run(
        "-c",
        script("""
            import os

            ray.init(num_cpus=4, **QUIET)

            @ray.remote
            class Talker:
                def talk(self):
                    print("the same line from everybody")

            talkers = [Talker.remote() for _ in range(4)]
            ray.get([t.talk.remote() for t in talkers for _ in range(5)])
            ray.shutdown()
        """),
    )
    assert output.count("the same line from everybody") < 20
    assert "repeated" in output


@better_than_ray
def test_prompt_of_the_driver_is_not_read_by_workers():
    output = run(
        "-c",
        script("""
            import sys

            ray.init(num_cpus=1, **QUIET)

            @ray.remote
            def f():
                return sys.stdin.read()

            assert ray.get(f.remote()) == ""
            print("LINE", sys.stdin.readline())
        """),
        input="for the driver\n",
    )
    assert "LINE for the driver" in output


def test_driver_arguments_and_working_directory(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        script("""
            import json, os, sys

            ray.init(num_cpus=1, **QUIET)

            @ray.remote
            def where():
                return os.getcwd()

            print("SAW", json.dumps([sys.argv[1:], ray.get(where.remote())]))
        """)
    )
    output = run(str(path), "--flag", "value", cwd=tmp_path)
    [line] = [line for line in output.splitlines() if line.startswith("SAW ")]
    assert json.loads(line[4:]) == [["--flag", "value"], str(tmp_path)]


@pytest.mark.parametrize(
    "name",
    [
        "actor.exit_actor",
        "actor.ActorHandle",
        "cloudpickle.dumps",
        "exceptions.RayTaskError",
        "job_config.JobConfig",
        "remote_function.RemoteFunction",
        "runtime_context.RuntimeContext",
        "util.ActorPool",
        "util.scheduling_strategies.NodeAffinitySchedulingStrategy",
    ],
)
def test_name_is_there_after_a_plain_import(name):
    run("-c", f"import {MODULE} as ray; ray.{name}")


def test_kinds_of_things():
    @ray.remote
    def f():
        return 1

    @ray.remote
    class A:
        pass

    assert isinstance(f, submodule("remote_function").RemoteFunction)
    assert isinstance(A, submodule("actor").ActorClass)
    with ray.init(num_cpus=1, **QUIET):
        assert isinstance(A.remote(), submodule("actor").ActorHandle)
        assert isinstance(f.remote(), ray.ObjectRef)


def test_import_is_light():
    if MODULE == "ray":
        pytest.skip("Ray is not")
    heavy = run("-c", f"import sys, {MODULE}; print(*(m for m in ('grpc', 'numpy', 'asyncio') if m in sys.modules))")
    assert "grpc" not in heavy
    assert "numpy" not in heavy
    assert sys.version_info >= (3, 11)
