"""``EventBus`` over NATS.

Subscriptions come back by themselves after an outage. What is published meanwhile waits in a bounded buffer and is
sent late, so an event that ages, as a heartbeat does, carries its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from shoal_common.bus.bus import EventBusError, Handler, OnGap
from shoal_common.bus.memory import MAX_QUEUED, WARN_EVERY_S, call_handler
from shoal_common.bus.subjects import check_subject, matcher
from shoal_common.tls import ServerTls

#: ``connect`` and ``subscribe`` give up after this time, in seconds.
DEADLINE_S = 10.0
#: Pause before a server that has not confirmed a subscription is asked again, in seconds.
PROBE_INTERVAL_S = 0.5
#: A publisher that is faster than the connection is held back for this time at most, in seconds.
PUBLISH_DEADLINE_S = 2.0
#: What has been published is sent at the end within this time, or lost, in seconds.
CLOSE_DEADLINE_S = 2.0
#: A server is taken for dead after so many unanswered pings, one every so many seconds.
PING_INTERVAL_S = 2
MAX_UNANSWERED_PINGS = 2
#: Pause between two attempts to connect again, in seconds.
RECONNECT_PAUSE_S = 0.2
#: Published during an outage and kept for its end at most; what is more is refused.
MAX_BUFFERED_BYTES = 2 * 1024 * 1024
#: Received and not handled yet, for one subscriber, at most.
MAX_QUEUED_BYTES = 64 * 1024 * 1024

_log = logging.getLogger(__name__)


class _Client(Client):
    def _connect_command(self) -> bytes:
        # The server decides whether there is TLS: whoever sits in between could do without, and would get the token.
        if "tls" in self.options and not self._server_info.get("tls_required"):
            raise nats.errors.Error("it does not offer TLS, which is asked for: the token is not sent")
        command: bytes = super()._connect_command()
        return command


class NatsBus:
    """Made with ``connect``. Belongs to the event loop in which that was called."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = _Client()
        self._subscriptions: set[_NatsSubscription] = set()
        self._problem = "no answer"
        self._connecting = True
        self._waiting = False
        self._lost = 0
        self._warn_at = 0.0
        self._closed = False

    @classmethod
    async def connect(
        cls, address: str, token: str, deadline_s: float = DEADLINE_S, *, tls: ServerTls | None = None
    ) -> NatsBus:
        """``address`` is the server's ``host:port``, or several of one cluster with commas between them. A server that
        is not up yet is waited for.

        Raises: EventBusError when it refuses the token, and after ``deadline_s`` seconds.
        """
        bus = cls(address)
        try:
            async with asyncio.timeout(deadline_s):
                await bus._client.connect(
                    [f"nats://{server}" for server in address.split(",")],
                    token=token,
                    tls=tls.context() if tls else None,
                    tls_hostname=(tls.server_name or None) if tls else None,
                    error_cb=bus._on_error,
                    disconnected_cb=bus._on_disconnected,
                    reconnected_cb=bus._on_reconnected,
                    closed_cb=bus._on_closed,
                    connect_timeout=2,
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=MAX_UNANSWERED_PINGS,
                    reconnect_time_wait=RECONNECT_PAUSE_S,  # type: ignore[arg-type]  # fractions do
                    max_reconnect_attempts=-1,
                    pending_size=MAX_BUFFERED_BYTES,
                    flush_timeout=PUBLISH_DEADLINE_S,
                )
        except nats.errors.AuthorizationError as error:
            await bus.close()
            raise EventBusError(f"NATS at {address} has refused the token: use the cluster's") from error
        except TimeoutError:
            await bus.close()
            raise EventBusError(
                f"cannot connect to NATS at {address} in {deadline_s:g} s: {bus._problem}. Is it running, and are "
                "address and TLS settings right?"
            ) from None
        except BaseException:
            await bus.close()
            raise
        bus._connecting = False
        return bus

    async def publish(self, subject: str, data: bytes) -> None:
        """Returns when the event is in the buffer that is sent next: NATS does not confirm it."""
        check_subject(subject)
        if self._closed:
            raise EventBusError(f"cannot publish {subject}: the event bus is closed")
        try:
            await self._client.publish(subject, data)
        except nats.errors.Error as error:
            raise EventBusError(f"cannot publish {subject} through NATS at {self._address}: {error}") from error

    async def subscribe(self, pattern: str, handler: Handler, on_gap: OnGap = lambda: None) -> _NatsSubscription:
        matcher(pattern)
        if self._closed:
            raise EventBusError(f"cannot subscribe to {pattern}: the event bus is closed")
        subscription = _NatsSubscription(handler, on_gap, self._subscriptions)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await subscription.start(self._client, pattern)
                await self._confirm()
        except (TimeoutError, nats.errors.Error) as error:
            await subscription.unsubscribe()
            raise EventBusError(
                f"cannot subscribe to {pattern}: NATS at {self._address} did not confirm it ({self._problem})"
            ) from error
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.unsubscribe()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await self._client.close()
        except (TimeoutError, OSError) as error:
            _log.warning("NATS at %s did not take the last events: %s", self._address, error or "no answer")

    async def _confirm(self) -> None:
        """Returns when the server has taken all that was asked of it; tries for ever.

        An event to ourselves, which the server handles after what was sent before it. The client's ``flush`` was
        rejected: it returns at once without a connection, never after a connection is lost, and when it is given up
        its late answer ends the client's reading, unnoticed until pings stay unanswered.
        """
        arrived = asyncio.Event()

        async def arrive(_message: Msg) -> None:
            arrived.set()

        inbox = self._client.new_inbox()
        probe = await self._client.subscribe(inbox, cb=arrive)
        try:
            while not arrived.is_set():
                await self._client.publish(inbox)
                with contextlib.suppress(TimeoutError):  # lost with its connection: another one goes out
                    async with asyncio.timeout(PROBE_INTERVAL_S):
                        await arrived.wait()
        finally:
            await probe.unsubscribe()

    async def _on_error(self, error: Exception) -> None:
        if not isinstance(error, nats.errors.SlowConsumerError):
            self._problem = f"{error}" or type(error).__name__
            if self._connecting and "authorization violation" in self._problem.lower():
                # Ends the client's attempts: more of them do not make the token right.
                raise nats.errors.AuthorizationError
            first = self._connecting and not self._waiting
            self._waiting = True
            _log.log(
                logging.WARNING if first else logging.DEBUG, "waiting for NATS at %s: %s", self._address, self._problem
            )
            return
        self._lost += 1
        now = asyncio.get_running_loop().time()
        if now >= self._warn_at:
            self._warn_at = now + WARN_EVERY_S
            _log.warning("subscriber of %s is too slow: %d events lost so far", error.sub.subject, self._lost)

    async def _on_disconnected(self) -> None:
        if not self._closed:
            _log.warning("connection to NATS at %s lost, connecting again: %s", self._address, self._problem)

    async def _on_reconnected(self) -> None:
        _log.info("connected to NATS at %s again", self._address)
        for subscription in list(self._subscriptions):
            subscription.on_gap()

    async def _on_closed(self) -> None:
        if not self._closed:
            _log.error("NATS at %s has ended the connection for good: %s", self._address, self._problem)


class _NatsSubscription:
    def __init__(self, handler: Handler, on_gap: OnGap, registry: set[_NatsSubscription]) -> None:
        self._handler = handler
        self.on_gap = on_gap
        self._registry = registry
        self._subscription: Subscription | None = None
        self._active = True

    async def start(self, client: Client, pattern: str) -> None:
        self._registry.add(self)
        self._subscription = await client.subscribe(
            pattern,
            cb=self._receive,
            pending_msgs_limit=MAX_QUEUED,
            pending_bytes_limit=MAX_QUEUED_BYTES,
        )

    async def unsubscribe(self) -> None:
        self._active = False
        self._registry.discard(self)
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:  # the connection is closed, and every subscription with it
                _log.debug("subscription of %s ended with its connection: %s", subscription.subject, error)

    async def _receive(self, message: Msg) -> None:
        # Whoever subscribes to everything would see the events with which subscriptions are confirmed.
        if self._active and not message.subject.startswith("_INBOX."):
            call_handler(self._handler, message.subject, message.data)
