from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from structlog.testing import capture_logs
from support.servers import free_port

from shoal_common import errors
from shoal_common.rpc.client import DEFAULT_DEADLINE_S, aio_channel, service_errors, sync_channel
from shoal_common.rpc.server import create_server, join_address, serve
from shoal_common.rpc.target import grpc_target
from shoal_common.service import healthcheck
from shoal_common.service.healthcheck import check
from shoal_proto.v1 import objectstore_pb2 as pb
from shoal_proto.v1.objectstore_pb2_grpc import (
    ObjectStoreServiceServicer,
    ObjectStoreServiceStub,
    add_ObjectStoreServiceServicer_to_server,
)

TOKEN = "the cluster's token"


class Servicer(ObjectStoreServiceServicer):
    """Answers with what the test sets; all four kinds of calls but stream-stream are here."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.remaining_s: float | None = None

    def _raise(self, context: Any) -> None:
        self.remaining_s = context.time_remaining()
        if self.error is not None:
            raise self.error

    async def PutBlob(self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Any) -> pb.PutBlobResponse:
        size = sum([len(message.chunk) async for message in request_iterator])
        self._raise(context)
        return pb.PutBlobResponse(size_bytes=size)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> AsyncIterator[pb.GetBlobResponse]:
        yield pb.GetBlobResponse(chunk=b"first")
        self._raise(context)
        yield pb.GetBlobResponse(chunk=b"last")

    async def DeleteBlobs(self, request: pb.DeleteBlobsRequest, context: Any) -> pb.DeleteBlobsResponse:
        self._raise(context)
        return pb.DeleteBlobsResponse(deleted=7)

    async def ListBlobs(self, request: pb.ListBlobsRequest, context: Any) -> pb.ListBlobsResponse:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "aborted by the handler itself")


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured
    structlog.reset_defaults()


@asynccontextmanager
async def running(servicer: Servicer) -> AsyncIterator[str]:
    server = create_server(TOKEN)
    add_ObjectStoreServiceServicer_to_server(servicer, server)
    port = await serve(server, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def call_delete(stub: Any) -> Any:
    return await stub.DeleteBlobs(pb.DeleteBlobsRequest())


async def call_get(stub: Any) -> bytes:
    return b"".join([message.chunk async for message in stub.GetBlob(pb.GetBlobRequest())])


async def call_put(stub: Any) -> Any:
    async def messages() -> AsyncIterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(chunk=b"abc")

    return await stub.PutBlob(messages())


KINDS = pytest.mark.parametrize("call", [call_delete, call_get, call_put])


@KINDS
async def test_a_call_with_the_token_is_answered(call: Callable[[Any], Any]) -> None:
    async with running(Servicer()) as address, aio_channel(address, TOKEN) as channel:
        answer = await call(ObjectStoreServiceStub(channel))
    assert answer in (pb.DeleteBlobsResponse(deleted=7), b"firstlast", pb.PutBlobResponse(size_bytes=3))


@KINDS
@pytest.mark.parametrize("token", ["wrong", TOKEN + "x", TOKEN.upper()])
async def test_a_call_with_another_token_is_refused_and_told_what_to_do(
    call: Callable[[Any], Any], token: str, logs: list[Any]
) -> None:
    servicer = Servicer()
    async with running(servicer) as address, aio_channel(address, token) as channel:
        with pytest.raises(errors.Unauthenticated, match="use the token of this cluster's head"), service_errors():
            await call(ObjectStoreServiceStub(channel))
    assert servicer.remaining_s is None
    assert [(line["event"], line["log_level"]) for line in logs] == [("rpc_failed", "warning")]
    assert TOKEN not in str(logs)


async def test_a_call_without_a_token_is_refused() -> None:
    async with running(Servicer()) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(errors.Unauthenticated), service_errors():
            await call_delete(ObjectStoreServiceStub(channel))


def test_a_server_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="token is empty"):
        create_server("")


@KINDS
@pytest.mark.parametrize("error", errors.ERRORS)
async def test_every_error_arrives_as_its_own_class(
    call: Callable[[Any], Any], error: type[errors.ServiceError]
) -> None:
    servicer = Servicer()
    servicer.error = error("what happened, to möbius")
    async with running(servicer) as address, aio_channel(address, TOKEN) as channel:
        with pytest.raises(errors.ServiceError) as caught, service_errors():
            await call(ObjectStoreServiceStub(channel))
    assert type(caught.value) is error
    assert str(caught.value) == "what happened, to möbius"


@KINDS
async def test_a_defect_is_internal_and_logged_with_its_traceback(call: Callable[[Any], Any], logs: list[Any]) -> None:
    servicer = Servicer()
    servicer.error = ZeroDivisionError("division by zero")
    async with running(servicer) as address, aio_channel(address, TOKEN) as channel:
        with pytest.raises(errors.InternalError, match="ZeroDivisionError: division by zero"), service_errors():
            await call(ObjectStoreServiceStub(channel))
    (line,) = logs
    assert (line["event"], line["log_level"], line["exc_info"]) == ("rpc_failed", "error", True)
    assert line["method"].startswith("/shoal_proto.v1.ObjectStoreService/")


async def test_a_handler_may_abort_by_itself() -> None:
    async with running(Servicer()) as address, aio_channel(address, TOKEN) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ObjectStoreServiceStub(channel).ListBlobs(pb.ListBlobsRequest())
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_a_method_that_does_not_exist_is_unimplemented() -> None:
    async with running(Servicer()) as address, aio_channel(address, TOKEN) as channel:
        method = channel.unary_unary("/shoal_proto.v1.Nothing/AtAll")  # type: ignore[var-annotated]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_unary_calls_have_a_deadline_and_may_name_their_own() -> None:
    servicer = Servicer()
    async with running(servicer) as address, aio_channel(address, TOKEN) as channel:
        stub = ObjectStoreServiceStub(channel)
        await stub.DeleteBlobs(pb.DeleteBlobsRequest())
        assert servicer.remaining_s is not None
        assert 0 < servicer.remaining_s < 2 * DEFAULT_DEADLINE_S
        await stub.DeleteBlobs(pb.DeleteBlobsRequest(), timeout=9 * DEFAULT_DEADLINE_S)
        assert servicer.remaining_s > 2 * DEFAULT_DEADLINE_S


async def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as reserved:  # bound and not listening: the port stays refused
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        async with aio_channel(address, TOKEN) as channel:
            with pytest.raises(errors.Unavailable), service_errors():
                await call_delete(ObjectStoreServiceStub(channel))
        assert "Connection refused" in await asyncio.to_thread(check, address)


async def test_a_channel_finds_the_service_again_after_its_restart() -> None:
    server = create_server(TOKEN)
    add_ObjectStoreServiceServicer_to_server(Servicer(), server)
    port = await serve(server, "127.0.0.1", 0)
    async with aio_channel(f"127.0.0.1:{port}", TOKEN) as channel:
        stub = ObjectStoreServiceStub(channel)
        await call_delete(stub)
        await server.stop(None)
        server = create_server(TOKEN)
        add_ObjectStoreServiceServicer_to_server(Servicer(), server)
        assert await serve(server, "127.0.0.1", port) == port
        answer = await stub.DeleteBlobs(pb.DeleteBlobsRequest(), wait_for_ready=True)
        assert answer.deleted == 7
        await server.stop(None)


class Slow(Servicer):
    """Its answers take for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def DeleteBlobs(self, request: pb.DeleteBlobsRequest, context: Any) -> pb.DeleteBlobsResponse:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("first", ["listens", "does not listen"])
async def test_of_several_addresses_the_one_that_answers_is_used(first: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"localhost:{reserved.getsockname()[1]}"
        async with running(Servicer()) as address:
            addresses = [address, nobody] if first == "listens" else [nobody, address]
            async with aio_channel(",".join(addresses), TOKEN) as channel:
                assert (await call_delete(ObjectStoreServiceStub(channel))).deleted == 7


async def test_patient_calls_go_on_at_the_next_replica() -> None:
    first = Slow()
    server = create_server(TOKEN)
    add_ObjectStoreServiceServicer_to_server(first, server)
    port = await serve(server, "127.0.0.1", 0)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        next_port = reserved.getsockname()[1]
    async with aio_channel(f"127.0.0.1:{port},127.0.0.1:{next_port}", TOKEN, patient=True) as channel:
        # Some have reached their handler when the server stops, some have not.
        calls = [asyncio.ensure_future(call_delete(ObjectStoreServiceStub(channel))) for _ in range(20)]
        await first.asked.wait()
        await server.stop(None)
        server = create_server(TOKEN)
        add_ObjectStoreServiceServicer_to_server(Servicer(), server)
        await serve(server, "127.0.0.1", next_port)
        assert [answer.deleted for answer in await asyncio.gather(*calls)] == [7] * 20
        await server.stop(None)


async def test_a_patient_call_that_is_cancelled_is_not_repeated() -> None:
    servicer = Slow()
    async with running(servicer) as address, aio_channel(address, TOKEN, patient=True) as channel:
        call = asyncio.ensure_future(call_delete(ObjectStoreServiceStub(channel)))
        await servicer.asked.wait()
        servicer.asked.clear()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert not servicer.asked.is_set()


async def test_an_error_of_the_service_itself_ends_a_patient_call_at_once() -> None:
    servicer = Servicer()
    servicer.error = errors.NotFound("nothing")
    async with running(servicer) as address, aio_channel(address, TOKEN, patient=True) as channel:
        with pytest.raises(errors.NotFound, match="nothing"), service_errors():
            await call_delete(ObjectStoreServiceStub(channel))


def test_names_become_one_target() -> None:
    assert grpc_target(["gcs:6381"]) == "gcs:6381", "gRPC looks up a single name, again and again"
    assert grpc_target(["127.0.0.1:1", "127.0.0.2:2"]) == "ipv4:127.0.0.1:1,127.0.0.2:2"
    assert grpc_target(["[::1]:1", "[::2]:2"]) == "ipv6:[::1]:1,[::2]:2"
    relay = grpc_target(["127.0.0.1:1", "localhost:2"])
    assert relay.startswith("unix-abstract:"), "it looks up several names, again and again"
    assert grpc_target(["127.0.0.1:1", "localhost:2"]) == relay


async def test_of_several_names_whichever_answers_is_used() -> None:
    nobody = f"localhost:{free_port()}"
    async with running(Servicer()) as address:
        port = address.rpartition(":")[2]
        async with aio_channel(f"{nobody},no-such-host.invalid:1,localhost:{port}", TOKEN, patient=True) as channel:
            for _ in range(2):
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    async with aio_channel(f"{nobody},no-such-host.invalid:1", TOKEN) as channel:
        with pytest.raises(errors.Unavailable), service_errors():
            await call_delete(ObjectStoreServiceStub(channel))


async def test_a_port_in_use_is_an_error_that_names_it() -> None:
    async with running(Servicer()) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            await serve(create_server(TOKEN), "127.0.0.1", port)


async def test_the_sync_channel_carries_token_deadline_and_errors() -> None:
    servicer = Servicer()

    def program(address: str) -> None:
        with sync_channel(address, TOKEN) as channel:
            stub = ObjectStoreServiceStub(channel)
            assert stub.DeleteBlobs(pb.DeleteBlobsRequest()).deleted == 7
            assert servicer.remaining_s is not None
            assert servicer.remaining_s < 2 * DEFAULT_DEADLINE_S
            assert b"".join(message.chunk for message in stub.GetBlob(pb.GetBlobRequest())) == b"firstlast"
            assert stub.PutBlob(iter([pb.PutBlobRequest(chunk=b"ab")])).size_bytes == 2
            servicer.error = errors.OutOfDisk("full")
            with pytest.raises(errors.OutOfDisk, match="full"), service_errors():
                stub.DeleteBlobs(pb.DeleteBlobsRequest())
        with sync_channel(address, "wrong") as channel:
            with pytest.raises(errors.Unauthenticated), service_errors():
                ObjectStoreServiceStub(channel).DeleteBlobs(pb.DeleteBlobsRequest())

    async with running(servicer) as address:
        await asyncio.to_thread(program, address)


async def test_health_is_told_without_a_token() -> None:
    async with running(Servicer()) as address:
        assert await asyncio.to_thread(check, address) == ""
    assert (await asyncio.to_thread(check, address)).startswith(f"{address} does not answer: ")


@pytest.mark.parametrize("status", ["NOT_SERVING", "UNKNOWN"])
async def test_a_service_that_answers_may_be_unhealthy(status: str) -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{await serve(server, '127.0.0.1', 0)}"
    assert await asyncio.to_thread(check, address) == f"{address} does not say that it is serving"
    await server.stop(None)


async def test_a_server_without_a_health_service_is_unhealthy() -> None:
    server = grpc.aio.server()
    address = f"127.0.0.1:{await serve(server, '127.0.0.1', 0)}"
    assert await asyncio.to_thread(check, address) == f"{address} does not say that it is serving"
    await server.stop(None)


def test_a_health_check_does_not_wait_for_who_takes_connections_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(healthcheck, "DEADLINE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert check(address) == f"{address} does not answer: timed out"


def test_addresses() -> None:
    assert join_address("127.0.0.1", 80) == "127.0.0.1:80"
    assert join_address("::1", 80) == "[::1]:80"
