"""Ids as programs see them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import shoal
from shoal.util.placement_group import PlacementGroup
from shoal_common import ids

RANDOM = [shoal.UniqueID, shoal.NodeID, shoal.WorkerID, shoal.FunctionID, shoal.ActorClassID]
CLASSES: list[Any] = [*RANDOM, shoal.JobID, shoal.TaskID, shoal.ActorID, shoal.PlacementGroupID]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_id_goes_through_its_binary_form_hex_and_pickle(cls: Any) -> None:
    binary = bytes(range(cls.size()))
    id_ = cls(binary)
    assert id_.binary() == bytes(id_) == binary
    assert id_.hex() == binary.hex()
    assert id_ == cls.from_binary(binary) == cls.from_hex(id_.hex()) == cls.from_hex(id_.hex().encode())
    assert pickle.loads(pickle.dumps(id_)) == id_
    assert repr(id_) == str(id_) == f"{cls.__name__}({binary.hex()})"
    assert not id_.is_nil()


@pytest.mark.parametrize("cls", CLASSES)
def test_nil_is_all_ones(cls: Any) -> None:
    assert cls.nil().is_nil()
    assert cls.nil() == cls(b"\xff" * cls.size())
    assert not cls(bytes(cls.size())).is_nil()


@pytest.mark.parametrize("cls", CLASSES)
def test_wrong_lengths_and_types(cls: Any) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__} has {cls.size()} bytes, not 3"):
        cls(b"abc")
    with pytest.raises(TypeError, match="made of bytes, not of a str"):
        cls("abc")
    for text in ("abcd", "zz" * cls.size(), cls.nil().hex() + "0", ""):
        with pytest.raises(ValueError, match=f"no {cls.__name__}: it has {2 * cls.size()} hexadecimal digits"):
            cls.from_hex(text)
    with pytest.raises(TypeError, match="takes a str, not a int"):
        cls.from_hex(7)


def test_equality_is_of_the_same_class_and_bytes() -> None:
    one, same, other = shoal.NodeID(b"1" * 16), shoal.NodeID(b"1" * 16), shoal.NodeID(b"2" * 16)
    assert len({one, same, other}) == 2
    assert one != shoal.WorkerID(b"1" * 16)
    assert one != b"1" * 16
    assert one != None  # noqa: E711


@pytest.mark.parametrize("cls", [*RANDOM, shoal.ActorID, shoal.PlacementGroupID])
def test_random_ones_differ(cls: Any) -> None:
    assert cls.from_random() != cls.from_random()


def test_jobs_have_numbers() -> None:
    assert shoal.JobID.from_int(258).int() == 258
    assert shoal.JobID.from_int(258) == shoal.JobID(ids.job_of_number(258))
    with pytest.raises(OverflowError):
        shoal.JobID.from_int(1 << 32)


def test_tasks_and_actors_name_their_job() -> None:
    job = ids.job_of_number(7)
    assert shoal.TaskID(ids.TaskIDs(job).next()).job_id() == shoal.JobID(job)
    assert shoal.ActorID(ids.new_actor_id(job)).job_id() == shoal.JobID(job)
    for nil in (shoal.TaskID.nil(), shoal.ActorID.nil(), shoal.ObjectRef.nil()):
        with pytest.raises(ValueError, match="is nil: it belongs to no job"):
            nil.job_id()


def test_a_task_does_not_name_its_actor_and_says_who_does() -> None:
    with pytest.raises(NotImplementedError, match="get_actor_id"):
        shoal.TaskID.nil().actor_id()


def test_the_id_of_an_object_is_its_reference() -> None:
    assert shoal.ObjectID is shoal.ObjectRef
    assert shoal.ObjectRef.nil().is_nil()
    assert shoal.ObjectRef.nil().task_id().is_nil()
    for make in (shoal.ObjectRef.from_binary, shoal.ObjectRef.from_hex):
        with pytest.raises(TypeError, match="cannot be made by hand"):
            make(b"x" * 24)


def test_no_placement_group_has_the_id_nil() -> None:
    empty = PlacementGroup.empty()
    assert empty.is_empty
    assert empty.id == shoal.PlacementGroupID.nil()
