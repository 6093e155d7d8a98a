"""What a program gets of a GCS that does not answer, or refuses."""

from __future__ import annotations

import pickle

import pytest
from support.servers import free_port

import shoal
from shoal import exceptions
from shoal._net.gcs.client import GcsClient, visiting
from shoal._net.gcs.errors import ClientClosed, InvalidArgument, NotFound
from shoal._net.gcs.records import GroupSpec
from shoal_common.states import PlacementStrategy


def test_no_answer_is_an_error_of_ours_that_names_the_gcs_and_travels() -> None:
    address = f"127.0.0.1:{free_port()}"
    client = GcsClient(address, "token", deadline_s=0.2)
    try:
        with pytest.raises(exceptions.RpcError, match=f"{address} did not answer ListNodes.*Ask again") as caught:
            client.nodes.list()
    finally:
        client.close()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.rpc_code) == (
        exceptions.RpcError,
        str(caught.value),
        caught.value.rpc_code,
    )


def test_a_refusal_keeps_its_reason_and_its_kind() -> None:
    nothing = GroupSpec(b"g" * 16, b"job1", b"w" * 16, "", "", False, PlacementStrategy.PACK, ())
    with shoal.init(num_cpus=1, logging_level="ERROR"):
        client = shoal._current.current().gcs
        with pytest.raises(InvalidArgument) as caught:
            client.groups.create(nothing)
        assert "did not answer" not in str(caught.value)
        with pytest.raises(NotFound, match="'nobody'"):
            client.actors.named("nobody", "nowhere")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), copy.message, copy.rpc_code) == (InvalidArgument, caught.value.message, 3)


def test_after_the_session_nobody_is_asked() -> None:
    with shoal.init(num_cpus=1, logging_level="ERROR"):
        client = shoal._current.current().gcs
    with pytest.raises(ClientClosed):
        client.nodes.list()
    with pytest.raises(ClientClosed):
        client.actors.begin_release(b"a" * 16, lambda error: None)
    with pytest.raises(ClientClosed):
        client.events.subscribe("shoal.>")


def test_a_wrong_token_is_said_to_be_one_with_a_session_and_without() -> None:
    with shoal.init(num_cpus=1, logging_level="ERROR") as context:
        address = context.address_info["gcs_address"]
        client = GcsClient(address, "wrong")
        try:
            with pytest.raises(exceptions.AuthenticationError, match=address):
                client.nodes.list()
        finally:
            client.close()
        with pytest.raises(exceptions.AuthenticationError, match=address), visiting(address, "wrong") as gcs:
            gcs.nodes.list()
