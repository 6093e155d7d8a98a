"""A TCP proxy in the test's own process, to cut a connection in the ways in which networks do."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

_READ_BYTES = 64 * 1024


class TcpProxy:
    """Forwards ``port`` of the loopback to ``target``, until it is told otherwise. One thread."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Connections made through it so far.
        self.accepted = 0
        #: Bytes forwarded so far.
        self.forwarded = 0
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._held = False
        self._refusing = False
        self._cut_after: int | None = None
        self._hold_after: int | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        self._thread.join()
        self.cut()
        self._listener.close()
        self._selector.close()

    def cut(self) -> None:
        """Close every connection; new ones are made."""
        with self._lock:
            for sock in list(self._pairs):
                self._drop(sock)

    def refuse(self) -> None:
        """Close every connection, and each new one at once."""
        self._refusing = True
        self.cut()

    def hold(self) -> None:
        """Nothing gets through any more, in no direction, and nobody is told: a network that swallows packets."""
        self._held = True

    def hold_after(self, size: int) -> None:
        """Hold when so many more bytes have been forwarded, once."""
        self._hold_after = size

    @property
    def holds(self) -> bool:
        return self._held

    def heal(self) -> None:
        """New connections get through. What was held is lost, as its connections are."""
        self.cut()
        self._held = self._refusing = False

    def cut_after(self, size: int) -> None:
        """Close every connection when so many more bytes have been forwarded, again and again."""
        self._cut_after = size

    def _run(self) -> None:
        left = None
        while not self._stopped:
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._listener:
                        self._accept()
                    elif self._held:
                        self._selector.unregister(sock)
                    elif sock in self._pairs:
                        size = self._forward(sock)
                        if self._hold_after is not None:
                            self._hold_after -= size
                            if self._hold_after <= 0:
                                self._hold_after = None
                                self._held = True
                        if self._cut_after is not None:
                            left = (self._cut_after if left is None else left) - size
                            if left <= 0:
                                left = None
                                for other in list(self._pairs):
                                    self._drop(other)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        if self._refusing:
            sock.close()
            return
        self.accepted += 1
        try:
            other = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            sock.close()
            return
        self._pairs[sock], self._pairs[other] = other, sock
        for end in (sock, other):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ)

    def _forward(self, sock: socket.socket) -> int:
        try:
            data = sock.recv(_READ_BYTES)
            if data:
                self._pairs[sock].sendall(data)
                self.forwarded += len(data)
                return len(data)
        except OSError:
            pass  # as good as closed
        self._drop(sock)
        return 0

    def _drop(self, sock: socket.socket) -> None:
        other = self._pairs.pop(sock, None)
        if other is None:
            return
        del self._pairs[other]
        for end in (sock, other):
            with contextlib.suppress(KeyError):
                self._selector.unregister(end)
            end.close()
