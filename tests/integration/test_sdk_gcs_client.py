"""What a program gets of a GCS that does not answer, or refuses."""

from __future__ import annotations

import pickle

import pytest
from support.servers import free_port

import shoal
from shoal import exceptions
from shoal._net.gcs_client import INVALID_ARGUMENT, GcsClient
from shoal_proto.v1 import gcs_pb2


def test_no_answer_is_an_error_of_ours_that_names_the_gcs_and_travels() -> None:
    address = f"127.0.0.1:{free_port()}"
    client = GcsClient(address, "token")
    try:
        with pytest.raises(exceptions.RpcError, match=f"{address} did not answer ListNodes.*Ask again") as caught:
            client.call("Node", "ListNodes", gcs_pb2.ListNodesRequest(), timeout=0.2)
    finally:
        client.close()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.rpc_code) == (
        exceptions.RpcError,
        str(caught.value),
        caught.value.rpc_code,
    )


def test_a_refusal_keeps_its_reason() -> None:
    with shoal.init(num_cpus=1, logging_level="ERROR"):
        client = shoal._current.current().gcs
        with pytest.raises(exceptions.RpcError) as caught:
            client.call("PlacementGroup", "CreatePlacementGroup", gcs_pb2.CreatePlacementGroupRequest())
        assert caught.value.rpc_code == INVALID_ARGUMENT
        assert "did not answer" not in str(caught.value)
