"""A process of a node, as far as its object store is concerned: creates, reads and frees objects over real sockets."""

from __future__ import annotations

import itertools
import mmap
import os
import socket
from types import TracebackType
from typing import Any

from support.clusters import RayletProcess
from support.processes import PATIENCE_S

from shoal_common.channel import codec, frames, handshake

JOB = b"job1"
_numbers = itertools.count(1)


def new_object_id() -> bytes:
    return JOB + next(_numbers).to_bytes(20, "big")


class StoreClient:
    """Connected as a driver. Blocks."""

    def __init__(self, node: RayletProcess, token: str, job_id: bytes = JOB) -> None:
        self.node_id = bytes.fromhex(node.node_id)
        self.worker_id = os.urandom(16)
        self._requests = itertools.count(1)
        self._received: list[Any] = []
        self._decoder = codec.Decoder(frames.RayletMessage)
        hello = handshake.hello("driver", node_id=self.node_id, worker_id=self.worker_id, job_id=job_id)
        side = handshake.Connecting(token, hello)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(os.fspath(node.session_dir / "sockets" / f"raylet-{node.node_id[:12]}.sock"))
        self.sock.sendall(side.to_send())
        data, fds, _, _ = socket.recv_fds(self.sock, 65536, 1)
        side.receive(data)
        assert side.reply is not None
        self.arena = mmap.mmap(fds[0], side.reply.arena_size)
        os.close(fds[0])
        self.sock.sendall(side.to_send())

    def __enter__(self) -> StoreClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        self.arena.close()

    def send(self, message: Any) -> None:
        self.sock.sendall(codec.encode_frame(message))

    def receive(self, kind: type[Any], request: int) -> Any:
        """The answer to a request; what comes before it is kept."""
        while True:
            for message in self._received:
                if isinstance(message, kind) and message.request == request:
                    self._received.remove(message)
                    return message
            data = self.sock.recv(65536)
            assert data, "the raylet has closed the connection"
            self._received += self._decoder.feed(data)

    def put(self, data: bytes, object_id: bytes = b"", owner: bytes = b"") -> bytes:
        """The new object's id. ``owner``: empty = this process."""
        object_id = object_id or new_object_id()
        self.write(object_id, self.create(object_id, len(data), owner), data)
        return object_id

    def create(self, object_id: bytes, size: int, owner: bytes = b"") -> frames.ObjectCreated:
        request = next(self._requests)
        self.send(frames.ObjectCreate(request, object_id, size, owner or self.worker_id))
        created: frames.ObjectCreated = self.receive(frames.ObjectCreated, request)
        assert not created.error, created.error
        return created

    def write(self, object_id: bytes, place: frames.ObjectCreated, data: bytes) -> None:
        """Fill what was created, and seal it."""
        if place.path:
            with open(place.path, "r+b") as file:
                file.write(data)
        else:
            self.arena[place.offset : place.offset + len(data)] = data
        self.send(frames.ObjectSeal(object_id))

    def is_empty(self) -> bool:
        """Nothing takes room in the arena: an object as large as it gets its lowest address, at once."""
        object_id = new_object_id()
        created = self.create(object_id, len(self.arena))
        self.send(frames.ObjectAbort(object_id))
        return created.offset == 0 and not created.path

    def ask(self, object_id: bytes, home: StoreClient | None = None) -> int:
        """Begin to get it; ``answer`` ends it."""
        request = next(self._requests)
        self.send(frames.ObjectGet(request, object_id, home.node_id if home is not None else b""))
        return request

    def answer(self, request: int) -> frames.ObjectLocated:
        located: frames.ObjectLocated = self.receive(frames.ObjectLocated, request)
        return located

    def pin(self, object_id: bytes, home: StoreClient | None = None) -> frames.ObjectLocated:
        return self.answer(self.ask(object_id, home))

    def bytes_of(self, located: frames.ObjectLocated) -> bytes:
        assert not located.error, located.error
        if located.path:
            with open(located.path, "rb") as file:
                return file.read()
        return self.arena[located.offset : located.offset + located.size]

    def get(self, object_id: bytes, home: StoreClient | None = None) -> bytes:
        data = self.bytes_of(self.pin(object_id, home))
        self.unpin(object_id)
        return data

    def unpin(self, object_id: bytes) -> None:
        self.send(frames.ObjectUnpin(object_id))

    def free(self, *object_ids: bytes) -> None:
        self.send(frames.ObjectFree(list(object_ids)))

    def free_elsewhere(self, object_ids: list[bytes], home: StoreClient) -> None:
        self.send(frames.ObjectFree(object_ids, home.node_id))

    def prefetch(self, *object_ids: bytes, home: StoreClient) -> None:
        self.send(frames.ObjectPrefetch([(object_id, home.node_id) for object_id in object_ids]))
