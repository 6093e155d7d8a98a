"""Ids: of what programs hold, and by themselves."""

from __future__ import annotations

import pickle

import pytest
from e2e.compat.target import IS_RAY, better_than_ray, ray, submodule

#: Ray's UniqueID is the one class without from_hex.
CLASSES = ["ActorClassID", "ActorID", "FunctionID", "JobID", "NodeID", "PlacementGroupID", "TaskID", "WorkerID"]


@pytest.mark.parametrize("name", CLASSES)
def test_forms(name):
    cls = getattr(ray, name)
    binary = bytes(range(cls.size()))
    id_ = cls(binary)
    assert id_.binary() == bytes(id_) == binary
    assert id_.hex() == binary.hex()
    assert repr(id_) == str(id_) == f"{name}({binary.hex()})"
    assert id_ == cls.from_hex(id_.hex()) == cls.from_binary(binary) == pickle.loads(pickle.dumps(id_))
    assert hash(id_) == hash(cls(binary))
    assert id_ not in (cls.nil(), binary, None)
    assert cls.nil().is_nil()
    assert not id_.is_nil()


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_no_id(name):
    cls = getattr(ray, name)
    with pytest.raises(ValueError, match="3"):
        cls(b"abc")
    with pytest.raises(TypeError):
        cls("abc")


def test_kinds():
    assert ray.ObjectID is ray.ObjectRef
    assert issubclass(ray.NodeID, ray.UniqueID)
    assert ray.NodeID.nil() != ray.UniqueID.nil()
    assert ray.JobID.from_int(7).int() == 7
    assert ray.UniqueID.from_random() != ray.UniqueID.from_random()


@better_than_ray
def test_hexadecimal_digits_that_are_no_id_are_an_error():
    with pytest.raises(ValueError, match="no JobID: it has 8 hexadecimal digits"):
        ray.JobID.from_hex("abc")


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")  # Ray's ids of the context are deprecated
def test_of_what_programs_hold():
    @ray.remote(num_cpus=0)
    class A:
        def ids(self):
            context = ray.get_runtime_context()
            return context.get()

    actor = A.remote()
    ref = actor.ids.remote()
    seen = ray.get(ref)
    job_id = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    assert type(ref.task_id()) is ray.TaskID
    # Ray 2.60's job_id() raises TypeError: 'JobID' object is not callable.
    assert IS_RAY or ref.job_id() == ref.task_id().job_id() == actor._actor_id.job_id() == job_id
    assert seen == {
        "job_id": job_id,
        "node_id": ray.NodeID.from_hex(ray.get_runtime_context().get_node_id()),
        "namespace": "compat",
        "task_id": ref.task_id(),
        "actor_id": actor._actor_id,
    }
    group = submodule("util.placement_group").placement_group([{"CPU": 1}])
    assert type(group.id) is ray.PlacementGroupID
    submodule("util.placement_group").remove_placement_group(group)
