"""A worker that registers at its raylet and then runs Python statements that the test sends to its own socket.

The statements see ``raylet`` (send, receive) and what is imported here.
"""

from __future__ import annotations

import argparse
import os
import signal  # noqa: F401 - for the statements
import socket
import sys
import traceback

import msgspec

from shoal_common.channel import codec, frames, handshake
from shoal_common.worker_launch import WorkerConfig


class Channel:
    """The connecting side of the framed channel, blocking."""

    def __init__(self, path: str, token: str, hello: frames.Hello) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        side = handshake.Connecting(token, hello)
        self.sock.sendall(side.to_send())
        data, fds, _, _ = socket.recv_fds(self.sock, 65536, 1)
        self.arena_fd = fds[0] if fds else -1
        side.receive(data)
        assert side.reply is not None
        self.arena_size = side.reply.arena_size
        self.sock.sendall(side.to_send())
        self._decoder = codec.Decoder(frames.RayletMessage)
        self._received: list[frames.Message] = []

    def send(self, message: frames.Message) -> None:
        self.sock.sendall(codec.encode_frame(message))

    def receive(self) -> frames.Message:
        while not self._received:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._received += self._decoder.feed(data)
        return self._received.pop(0)


def run(config: WorkerConfig) -> None:
    if os.environ.get("FAKE_WORKER_FAILS"):
        print("ModuleNotFoundError: no module named 'something'", file=sys.stderr, flush=True)
        os._exit(7)
    os.environ.update(config.env)
    path = os.path.join(config.session_dir, f"w-{config.worker_id.hex()[:12]}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    raylet = Channel(
        config.raylet_path,
        config.token,
        handshake.hello(
            "worker",
            node_id=config.node_id,
            worker_id=config.worker_id,
            address=frames.WorkerAddress(config.node_id, config.worker_id, path),
        ),
    )
    scope = {**globals(), "raylet": raylet}
    import select

    poller = select.poll()
    poller.register(raylet.sock, select.POLLIN)
    poller.register(listener, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                with client, client.makefile("rb") as source:
                    try:
                        exec(source.read().decode(), scope)
                    except Exception:
                        traceback.print_exc()
                    client.sendall(b"done")
            elif not raylet.sock.recv(1, socket.MSG_PEEK):
                os._exit(0)
            elif (message := raylet.receive()) is not None:
                on_message(raylet, message)


def on_message(raylet: Channel, message: frames.Message) -> None:
    match message:
        case frames.WorkerExit(reason=reason):
            raylet.send(frames.ExitIntent("INTENDED_SYSTEM_EXIT", f"asked to: {reason}"))
            os._exit(0)
        case frames.CreateActor(actor_id=actor_id, incarnation=incarnation, spec=spec):
            if spec == b"crash":
                os._exit(5)
            error = b"ValueError" if spec == b"raise" else b""
            raylet.send(frames.ActorCreated(actor_id, incarnation, error))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-fd", type=int, required=True)
    with os.fdopen(parser.parse_args().config_fd, "rb") as file:
        run(msgspec.json.decode(file.read(), type=WorkerConfig))


if __name__ == "__main__":
    main()
