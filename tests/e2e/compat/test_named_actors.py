"""Actors with names: look-up, namespaces, get_if_exists, detached ones."""

from __future__ import annotations

import os
import threading

import pytest
from e2e.compat.target import alive, eventually, exceptions, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def cells():
    @ray.remote
    class Cell:
        def __init__(self, value=0):
            self.value = value

        def set(self, value):
            self.value = value

        def get(self):
            return self.value

        def pid(self):
            return os.getpid()

    return Cell


def test_look_up(cells):
    made = cells.options(name="look-up").remote(3)
    found = ray.get_actor("look-up")
    assert found == made
    assert ray.get(found.get.remote()) == 3


def test_look_up_from_a_task(cells):
    cell = cells.options(name="from-task").remote()

    @ray.remote
    def change():
        ray.get(ray.get_actor("from-task").set.remote(7))

    ray.get(change.remote())
    assert ray.get(cell.get.remote()) == 7


def test_name_is_visible_at_once(cells):
    for i in range(5):
        made = cells.options(name=f"at-once-{i}").remote()
        assert ray.get_actor(f"at-once-{i}") == made


def test_unknown_name():
    with pytest.raises(ValueError, match="Failed to look up actor with name 'nobody'"):
        ray.get_actor("nobody")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: ray.get_actor(""), ValueError),
        (lambda: ray.get_actor(1), TypeError),
        (lambda: ray.get_actor("a", namespace=1), TypeError),
        (lambda: ray.get_actor("a", namespace=""), ValueError),
    ],
)
def test_names_that_are_none(call, error):
    with pytest.raises(error):
        call()


def test_empty_names_are_refused(cells):
    with pytest.raises(ValueError, match="Actor name cannot be an empty string"):
        cells.options(name="").remote()
    with pytest.raises(ValueError, match='"" is not a valid namespace'):
        cells.options(name="a", namespace="").remote()


def test_name_is_taken(cells):
    first = cells.options(name="taken").remote(1)
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="taken"):
        cells.options(name="taken").remote(2)
    with pytest.raises(ValueError, match="already taken"):
        cells.options(name="taken").remote(2)
    assert ray.get(first.get.remote()) == 1


def test_name_is_free_after_kill(cells):
    first = cells.options(name="reused").remote(1)
    ray.get(first.get.remote())
    ray.kill(first)

    def gone():
        try:
            ray.get_actor("reused")
        except ValueError:
            return True
        return False

    eventually(gone, "the name is free")
    second = cells.options(name="reused").remote(2)
    assert ray.get(second.get.remote()) == 2


def test_named_actor_ends_with_its_last_handle(cells):
    cell = cells.options(name="not-held").remote()
    pid = ray.get(cell.pid.remote())
    weak = ray.get_actor("not-held")
    assert ray.get(weak.get.remote()) == 0
    del cell
    eventually(lambda: not alive(pid), "a handle from get_actor does not hold the actor")


def test_namespaces(cells):
    here = cells.options(name="both").remote("here")
    there = cells.options(name="both", namespace="there").remote("there")
    assert ray.get(ray.get_actor("both").get.remote()) == "here"
    assert ray.get(ray.get_actor("both", namespace="there").get.remote()) == "there"
    assert here != there
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor("both", namespace="elsewhere")


def test_namespace_of_the_job_is_inherited_by_tasks():
    @ray.remote
    def namespace():
        return ray.get_runtime_context().namespace

    assert ray.get_runtime_context().namespace == "compat"
    assert ray.get(namespace.remote()) == "compat"


def test_get_if_exists(cells):
    first = cells.options(name="once", get_if_exists=True).remote(1)
    second = cells.options(name="once", get_if_exists=True).remote(2)
    assert first == second
    assert ray.get(second.get.remote()) == 1


def test_get_if_exists_from_many_threads(cells):
    handles = []

    def make():
        handles.append(cells.options(name="raced", get_if_exists=True).remote())

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 6
    assert len({ray.get(handle.pid.remote()) for handle in handles}) == 1


def test_list_named_actors(cells):
    list_named_actors = submodule("util").list_named_actors
    held = [cells.options(name="listed").remote(), cells.options(name="listed", namespace="there").remote()]
    ray.get([cell.get.remote() for cell in held])
    assert list_named_actors().count("listed") == 1
    everywhere = list_named_actors(all_namespaces=True)
    assert {"name": "listed", "namespace": "compat"} in everywhere
    assert {"name": "listed", "namespace": "there"} in everywhere


def test_detached_actor_outlives_its_handles(cells):
    cells.options(name="detached", lifetime="detached").remote(9)
    found = ray.get_actor("detached")
    assert ray.get(found.get.remote()) == 9
    pid = ray.get(found.pid.remote())
    ray.kill(found)
    eventually(lambda: not alive(pid), "kill ends a detached actor")


def test_detached_actor_outlives_the_actor_that_made_it(cells):
    @ray.remote
    class Maker:
        def make(self):
            child = cells.options(name="orphan", lifetime="detached").remote(5)
            return ray.get(child.get.remote())

    maker = Maker.remote()
    assert ray.get(maker.make.remote()) == 5
    ray.kill(maker)
    with pytest.raises(exceptions.RayActorError):
        ray.get(maker.make.remote())
    orphan = ray.get_actor("orphan")
    assert ray.get(orphan.get.remote()) == 5
    ray.kill(orphan)


def test_name_in_the_runtime_context():
    @ray.remote
    class A:
        def name(self):
            return ray.get_runtime_context().get_actor_name()

    assert ray.get(A.options(name="i-know-my-name").remote().name.remote()) == "i-know-my-name"
    assert not ray.get(A.remote().name.remote())
