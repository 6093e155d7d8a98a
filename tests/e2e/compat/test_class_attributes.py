"""What else one can ask of actor classes, remote functions and methods: attributes, names, other ways to call them."""

from __future__ import annotations

import inspect

import pytest
from e2e.compat.target import IS_RAY, MODULE, better_than_ray, ray

pytestmark = pytest.mark.usefixtures("cluster")


class Base:
    limit = 7

    @staticmethod
    def double(x):
        return 2 * x


@ray.remote
class Child(Base):
    """About children."""

    name = "child"

    @classmethod
    def make(cls, x):
        return cls.limit, x

    def inside(self):
        return Child.limit, Child.double(4), Child.make(1)

    def add(self, x, y=0):
        return x + y


@ray.remote
def add(x, y=0):
    return x + y


def test_attributes_of_the_class():
    assert (Child.limit, Child.name, Child.double(3), Child.make(1)) == (7, "child", 6, (7, 1))
    assert Child.__doc__ == "About children."
    with pytest.raises(AttributeError, match="nothing"):
        _ = Child.nothing
    assert not hasattr(Child, "nothing")
    assert Child.options(num_cpus=0).limit == 7


def test_attributes_inside_of_the_actor():
    assert ray.get(Child.remote().inside.remote()) == (7, 8, (7, 1))


@better_than_ray  # where the class that is asked is another one than the instance's
def test_class_is_not_made_a_second_time():
    @ray.remote
    class Counted:
        made = 0

        def __init__(self):
            type(self).made += 1

        def count(self):
            return Counted.made, type(self).made

    assert ray.get(Counted.remote().count.remote()) == (1, 1)


def test_attributes_in_a_task():
    @ray.remote
    def ask():
        return Child.limit, Child.double(2)

    assert ray.get(ask.remote()) == (7, 4)


def test_names():
    assert {"add", "inside", "remote", "options", "limit"} <= set(dir(Child))
    assert repr(Child).startswith("ActorClass(Child")
    actor = Child.remote()
    assert {"add", "inside"} <= set(dir(actor))
    metadata = Child.__ray_metadata__
    assert metadata.class_name.endswith("Child")
    assert metadata.modified_class.limit == 7
    assert hasattr(metadata.modified_class, "inside")


def test_remote_with_arguments_and_options_in_one_call():
    assert ray.get(add._remote([1], {"y": 2}, num_cpus=0.5)) == 3
    assert ray.get(add._remote(args=(1,))) == 1
    actor = Child._remote(num_cpus=0, name="one-call")
    assert ray.get(ray.get_actor("one-call").add._remote((1,), {"y": 2}, num_returns=1)) == 3
    ray.kill(actor)


@better_than_ray  # which shows *args, **kwargs
def test_signatures():
    @ray.remote
    class Made:
        def __init__(self, x, *, y=1):
            pass

        def method(self, a, b=2, *c, d=3, **e):
            pass

    @ray.remote
    def find_out(handed_on):
        return str(inspect.signature(handed_on))

    assert str(inspect.signature(Made)) == str(inspect.signature(Made.options(num_cpus=0).remote)) == "(x, *, y=1)"
    method = Made.remote(1).method
    assert method.__name__ == "method"
    assert str(inspect.signature(method)) == "(a, b=..., *__args, d=..., **__kwargs)"
    # A class that comes from elsewhere is not loaded for that.
    assert ray.get(find_out.remote(Made)) == "(x, *, y=...)"


def test_methods_that_python_has_names_for():
    @ray.remote
    class Doubles:
        def __call__(self, x):
            return 2 * x

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return i

    doubles = Doubles.remote()
    calls = [doubles.__call__.remote(4), doubles.__len__.remote(), doubles.__getitem__.remote(5)]
    assert ray.get(calls) == [8, 3, 5]
    assert not callable(doubles)
    with pytest.raises(TypeError, match="not callable"):
        doubles(4)


@better_than_ray  # whose actors of such classes cannot be made
def test_constructors_that_are_not_written_as_init():
    class New:
        def __new__(cls, x):
            made = super().__new__(cls)
            made.x = x
            return made

        def get(self):
            return self.x

    @ray.remote
    class Map(dict):
        def keys_of(self):
            return sorted(self)

    assert ray.get(ray.remote(New).remote(4).get.remote()) == 4
    with pytest.raises(TypeError, match="too many positional"):
        ray.remote(New).remote(4, 5)
    m = Map.remote({"a": 1}, b=2)
    assert ray.get([m.keys_of.remote(), m.get.remote("a"), m.__len__.remote()]) == [["a", "b"], 1, 2]


def test_methods_of_the_whole_mro():
    class Root:
        def who(self):
            return ["Root"]

        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

    class Left(Root):
        def who(self):
            return ["Left", *super().who()]

    class Right(Root):
        def who(self):
            return ["Right", *super().who()]

    @ray.remote
    class Both(Left, Right):
        def who(self):
            return ["Both", *super().who()]

    both = Both.remote()
    assert ray.get(both.who.remote()) == ["Both", "Left", "Right", "Root"]
    assert ray.get(both.two.remote()) == [1, 2]


@better_than_ray  # which forgets those that stand outside of @classmethod and @staticmethod
def test_options_of_class_and_static_methods():
    @ray.remote
    class Actor:
        @ray.method(num_returns=2)
        @classmethod
        def of_class(cls):
            return cls.__name__, 2

        @ray.method(num_returns=2)
        @staticmethod
        def static():
            return 1, 2

        @staticmethod
        @ray.method(num_returns=2)
        def inner():
            return 1, 2

    actor = Actor.remote()
    for refs in (actor.of_class.remote(), actor.static.remote(), actor.inner.remote()):
        assert ray.get(refs)[1] == 2


def test_name_that_is_none():
    with pytest.raises(ValueError, match="non-empty"):
        ray.get_actor(None)


# -- the runtime context ----------------------------------------------------------------------------------------------


def test_function_names():
    @ray.remote
    def local():
        return ray.get_runtime_context().get_task_function_name()

    @ray.remote
    class Actor:
        def method(self):
            return ray.get_runtime_context().get_task_function_name()

    function = ray.get(local.options(name="other").remote())
    assert function.startswith(__name__ + ".")
    assert function.endswith("local")
    method = ray.get(Actor.remote().method.remote())
    assert method.startswith(__name__ + ".")
    assert method.endswith("Actor.method")
    assert ray.get_runtime_context().get_task_function_name() is None


@pytest.mark.filterwarnings("ignore")  # Ray's are deprecated
def test_ids_of_the_context():
    @ray.remote
    class Actor:
        def ids(self):
            context = ray.get_runtime_context()
            return (
                context.actor_id.hex() == context.get_actor_id(),
                context.task_id.hex() == context.get_task_id(),
                context.node_id.hex() == context.get_node_id(),
                context.job_id.hex() == context.get_job_id(),
                context.current_placement_group_id is None,
            )

    assert ray.get(Actor.remote().ids.remote()) == (True,) * 5


def test_families_of_accelerators():
    families = ray.get_runtime_context().get_accelerator_ids()
    assert families["GPU"] == families["neuron_cores"] == families["TPU"] == []


# -- errors -----------------------------------------------------------------------------------------------------------


def test_error_of_an_argument_names_who_needed_it():
    @ray.remote
    def producer():
        raise ValueError("no luck")

    @ray.remote
    class Consumer:
        def method(self, x):
            return x

    with pytest.raises(ValueError, match="no luck") as task:
        ray.get(add.remote(add.remote(producer.remote())))
    with pytest.raises(ValueError, match="no luck") as call:
        ray.get(Consumer.remote().method.remote(producer.remote()))
    for error in (task.value, call.value):
        assert "At least one of the input arguments for this task could not be computed:" in str(error)
        assert f"{MODULE}::producer()" in str(error)
    assert str(task.value).count(f"{MODULE}::add()") == 2
    assert "method()" in str(call.value)


def test_nested_traceback_shows_the_users_code_only():
    @ray.remote
    def inner():
        raise ValueError("no luck")

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    with pytest.raises(ValueError, match="no luck") as caught:
        ray.get(outer.remote())
    text = str(caught.value)
    assert "in inner" in text
    assert "in outer" in text
    if not IS_RAY:
        assert "core_worker.py" not in text
        assert "waiting.py" not in text


def test_error_of_a_constructor_names_the_actor():
    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("no luck")

        def method(self):
            return 1

    actor = Broken.remote()
    with pytest.raises(ray.exceptions.ActorDiedError, match="no luck") as caught:
        ray.get(actor.method.remote())
    assert f"actor_id={actor._actor_id.hex()}" in str(caught.value)
    assert "Broken" in str(caught.value)


def test_kill_is_told():
    actor = Child.remote()
    ray.get(actor.add.remote(1))
    ray.kill(actor)
    with pytest.raises(ray.exceptions.ActorDiedError, match=rf"killed by .?{MODULE}\.kill") as caught:
        ray.get(actor.add.remote(1))
    assert "before it was created" not in str(caught.value)
