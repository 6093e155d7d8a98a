"""Nobody without the token, and nobody who would not understand, gets in: neither over gRPC nor over the channels."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from support.drivers import Driver
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions
from shoal_common.channel import codec, frames, handshake
from shoal_proto.v1 import gcs_pb2, gcs_pb2_grpc


@pytest.fixture(scope="module")
def session():
    context = shoal.init(num_cpus=1, logging_level="ERROR", log_to_driver=False)

    @shoal.remote
    def warm():
        return os.getpid()

    shoal.get(warm.remote())
    yield json.loads((Path(context["session_dir"]) / "cluster.json").read_text())
    # Whatever was done to it, it still works.
    assert shoal.get(warm.remote(), timeout=PATIENCE_S)
    shoal.shutdown()


def channels(session):
    """Sockets of the raylet, of the driver, and of the workers."""
    sockets = sorted((Path(session["session_dir"]) / "sockets").iterdir())
    kinds = {path.name.split("-")[0] for path in sockets}
    assert kinds >= {"raylet", "d", "w"}
    return sockets


def hello(**changes):
    fields = {
        "version": frames.PROTOCOL_VERSION,
        "nonce": os.urandom(handshake.NONCE_BYTES),
        "role": "driver",
        "node_id": b"",
        "worker_id": os.urandom(16),
        "job_id": b"\0\0\0\1",
        "pid": os.getpid(),
        "python": handshake.python_minor(),
        "address": None,
    }
    return frames.Hello(**{**fields, **changes})


@contextlib.contextmanager
def connected(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(path))
        yield sock


def read_all(sock):
    """Until the other side closes."""
    received = b""
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(sock, 65536, 1)
        except ConnectionResetError:
            return received
        for fd in fds:
            os.close(fd)
        if not data:
            return received
        received += data


def reply_to(sock):
    """The one frame that answers a hello, and the descriptors that came along."""
    decoder = codec.Decoder(frames.HelloReply)
    while True:
        data, fds, _, _ = socket.recv_fds(sock, 65536, 1)
        for fd in fds:
            os.close(fd)
        assert data, "closed without an answer"
        messages = decoder.feed(data)
        if messages:
            return messages[0], len(fds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": "3.8"}, ["3.8", handshake.python_minor()]),
        ({"python": "2.7"}, ["2.7"]),
        ({"version": frames.PROTOCOL_VERSION + 1}, ["protocol version", str(frames.PROTOCOL_VERSION + 1)]),
        ({"version": 0}, ["protocol version"]),
        ({"nonce": b"short"}, ["handshake"]),
    ],
    ids=["older Python", "much older Python", "newer protocol", "older protocol", "short nonce"],
)
def test_peer_that_would_not_understand(session, changes, words):
    for path in channels(session):
        with connected(path) as sock:
            sock.sendall(codec.encode_frame(hello(**changes)))
            reply, descriptors = reply_to(sock)
            for word in words:
                assert word in reply.error
            # Refused before anything is proved or given away.
            assert reply.proof == b""
            assert descriptors == 0
            assert read_all(sock) == b""


def test_wrong_token_on_the_channel(session):
    for path in channels(session):
        with connected(path) as sock:
            greeting = hello()
            sock.sendall(codec.encode_frame(greeting))
            reply, _ = reply_to(sock)
            assert reply.error == ""
            # The other side does prove that it has the token, and does not take a wrong proof.
            assert reply.proof == handshake.prove(session["token"], b"accepting", greeting.nonce, reply.nonce)
            proof = handshake.prove("another token", b"connecting", greeting.nonce, reply.nonce)
            # What stands behind a wrong proof is not looked at.
            sock.sendall(codec.encode_frame(frames.HelloProof(proof)) + codec.encode_frame(frames.FlushLogs(1)))
            assert read_all(sock) == b""


def test_proof_is_not_reflected(session):
    """The proof of one side is no proof for the other."""
    for path in channels(session):
        with connected(path) as sock:
            sock.sendall(codec.encode_frame(hello()))
            reply, _ = reply_to(sock)
            sock.sendall(codec.encode_frame(frames.HelloProof(reply.proof)))
            assert read_all(sock) == b""


def test_a_handshake_that_is_said_again_lets_nobody_in(session):
    """Every byte that somebody with the token has sent, on another connection: its proof was for another nonce."""
    for path in channels(session):
        with connected(path) as sock:
            said = hello(job_id=b"job9")  # not the session's job, which would end with this driver
            greeting = codec.encode_frame(said)
            sock.sendall(greeting)
            reply, _ = reply_to(sock)
            right = handshake.prove(session["token"], b"connecting", said.nonce, reply.nonce)
            proof = codec.encode_frame(frames.HelloProof(right))
            sock.sendall(proof)
        for _ in range(3):
            with connected(path) as sock:
                sock.sendall(greeting)
                again, _ = reply_to(sock)
                assert again.nonce != reply.nonce
                sock.sendall(proof + codec.encode_frame(frames.FlushLogs(1)))
                assert read_all(sock) == b""


class Poison:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        b"\0\0\0\0" * 16,
        codec.LENGTH.pack(codec.MAX_FRAME_BYTES + 1),
        codec.encode_frame(frames.HelloProof(b"x" * 32)),
        codec.encode_frame(frames.FlushLogs(1)),
        "pickle",
    ],
    ids=["nothing", "half a frame", "http", "ones", "empty frames", "huge", "proof first", "no hello", "pickle"],
)
def test_garbage(session, tmp_path, garbage):
    target = tmp_path / "unpickled"
    if garbage == "pickle":
        body = pickle.dumps(Poison(str(target)))
        garbage = codec.LENGTH.pack(len(body)) + body
    for path in channels(session):
        with connected(path) as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
    assert not target.exists()


def test_many_connections_that_say_nothing(session):
    @shoal.remote
    def f():
        return 1

    with contextlib.ExitStack() as stack:
        for path in channels(session):
            for _ in range(20):
                stack.enter_context(connected(path))
        assert shoal.get([f.remote() for _ in range(20)], timeout=PATIENCE_S) == [1] * 20


def test_files_are_the_users_own(session):
    for path in [Path(session["session_dir"]), Path(session["session_dir"]) / "cluster.json", *channels(session)]:
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path
    assert Path(session["session_dir"]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("token", [None, "", "another token"], ids=["none", "empty", "another"])
def test_grpc_without_the_token(session, token):
    from shoal_common.rpc.client import sync_channel

    address = session["gcs_address"]
    with sync_channel(address, token) if token else grpc.insecure_channel(address) as channel:
        for call in (
            lambda: gcs_pb2_grpc.NodeServiceStub(channel).ListNodes(gcs_pb2.ListNodesRequest(), timeout=PATIENCE_S),
            lambda: gcs_pb2_grpc.JobServiceStub(channel).StartJob(gcs_pb2.StartJobRequest(), timeout=PATIENCE_S),
            lambda: gcs_pb2_grpc.FunctionServiceStub(channel).GetFunction(
                gcs_pb2.GetFunctionRequest(function_id=b"x" * 20), timeout=PATIENCE_S
            ),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert session["token"] not in str(caught.value)


def test_services_listen_on_loopback_only(session):
    """Every TCP socket of the cluster's processes."""
    from support.processes import descendants

    inodes = set()
    for pid in descendants(os.getpid()):
        with contextlib.suppress(FileNotFoundError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    link = os.readlink(fd)
                    if link.startswith("socket:["):
                        inodes.add(link[8:-1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].split(":")[0])
    assert listening
    # 127.0.0.1, also as IPv6 writes it, and ::1.
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening) <= loopback


def test_driver_with_a_wrong_token(session):
    program = f"""
        try:
            ray.init(address={session["gcs_address"]!r}, logging_level="ERROR")
        except ray.exceptions.AuthenticationError as error:
            report(error=str(error), initialized=ray.is_initialized())
    """
    with Driver(program, env={"SHOAL_AUTH_TOKEN": "another token"}) as driver:
        facts = driver.report()
        assert driver.wait() == 0
    assert session["gcs_address"] in facts["error"]
    assert "another token" not in facts["error"]
    assert session["token"] not in facts["error"]
    assert not facts["initialized"]


def test_driver_with_the_token_from_a_file(session, tmp_path):
    path = tmp_path / "token"
    path.write_text(session["token"] + "\n")
    program = f"""
        ray.init(address={session["gcs_address"]!r}, logging_level="ERROR")
        report(got=ray.get(ray.remote(lambda: 5).remote()))
    """
    # In another directory for sessions, so that the token of this one is not found there.
    env = {"SHOAL_AUTH_TOKEN_PATH": str(path), "TMPDIR": str(tmp_path)}
    with Driver(program, env=env) as driver:
        assert driver.report() == {"got": 5}
        assert driver.wait() == 0
    with Driver(program.replace("report(got", "report(never"), env={"TMPDIR": str(tmp_path)}) as driver:
        assert driver.wait() != 0
        assert "AuthenticationError" in driver.text


@pytest.mark.parametrize(
    ("address", "error"),
    [("127.0.0.1:1", "ConnectionError"), ("nonsense", "ValueError"), ("ray://127.0.0.1:1", "ValueError")],
)
def test_wrong_address(address, error):
    code = f"import shoal\ntry:\n    shoal.init(address={address!r})\nexcept {error} as e:\n    print('REFUSED', e)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "REFUSED" in done.stdout, done.stderr
    assert address in done.stdout


def test_authentication_error_is_one_of_ours():
    assert issubclass(exceptions.AuthenticationError, exceptions.ShoalError)
