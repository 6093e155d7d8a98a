from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal_common.channel import tunnel
from shoal_common.channel.tunnel import Closed, Ended, Event, Lost, Opened, Received, Tunnel, TunnelError

GRACE_S = 90.0


class Pair:
    """A client's and a gateway's end, and a connection between them that loses what is under way when it breaks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = Tunnel(client=True, grace_s=GRACE_S, now=0.0)
        self.gateway = Tunnel(client=False, grace_s=GRACE_S, now=0.0)
        self.wires: dict[Tunnel, bytearray] = {self.client: bytearray(), self.gateway: bytearray()}
        self.events: dict[Tunnel, list[Event]] = {self.client: [], self.gateway: []}
        #: What each end has received, by stream.
        self.got: dict[Tunnel, dict[int, bytearray]] = {
            self.client: defaultdict(bytearray),
            self.gateway: defaultdict(bytearray),
        }
        self.consume = True

    def other(self, end: Tunnel) -> Tunnel:
        return self.gateway if end is self.client else self.client

    def connect(self) -> None:
        told = {end: self.other(end).received for end in (self.client, self.gateway)}
        for end, received in told.items():
            end.resume(received, self.now)

    def cut(self) -> None:
        for end, wire in self.wires.items():
            wire.clear()
            end.disconnected(self.now)

    def send(self, end: Tunnel, most: int = 1 << 30) -> int:
        """Bytes of ``end`` go on the wire."""
        buffers = end.pending()
        size = min(most, sum(map(len, buffers)))
        self.wires[end] += b"".join(buffers)[:size]
        if size:
            end.sent(size, self.now)
        return size

    def arrive(self, end: Tunnel, most: int = 1 << 30) -> int:
        """Bytes on the wire towards ``end`` arrive."""
        wire = self.wires[self.other(end)]
        data = bytes(wire[:most])
        del wire[:most]
        if data:
            self.take(end, end.receive(data, self.now))
        return len(data)

    def take(self, end: Tunnel, events: list[Event]) -> None:
        self.events[end] += events
        for event in events:
            if isinstance(event, Received):
                self.got[end][event.stream] += event.data
                if self.consume:
                    end.consumed(event.stream, len(event.data))

    def settle(self) -> None:
        """Until nothing moves any more."""
        moved = 1
        while moved:
            moved = sum(self.send(end) + self.arrive(self.other(end)) for end in (self.client, self.gateway))

    def received(self, end: Tunnel, kind: type[Event]) -> list[Event]:
        return [event for event in self.events[end] if isinstance(event, kind)]


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.connect()
    return pair


def test_a_stream_carries_bytes_both_ways_and_closes_behind_them(pair: Pair) -> None:
    stream = pair.client.open(b"the GCS")
    pair.client.send(stream, b"question")
    pair.settle()
    assert pair.received(pair.gateway, Opened) == [Opened(stream, b"the GCS")]
    pair.gateway.send(stream, b"answer")
    pair.gateway.close(stream, "that was all")
    pair.settle()
    assert pair.got[pair.gateway][stream] == b"question"
    assert pair.got[pair.client][stream] == b"answer"
    assert pair.received(pair.client, Closed) == [Closed(stream, "that was all")]
    assert pair.client.room(stream) == pair.gateway.room(stream) == 0


def test_both_ends_open_streams_without_getting_into_each_others_way(pair: Pair) -> None:
    ours, theirs = pair.client.open(b"a"), pair.gateway.open(b"b")
    assert ours != theirs
    pair.settle()
    assert pair.received(pair.client, Opened) == [Opened(theirs, b"b")]
    assert pair.received(pair.gateway, Opened) == [Opened(ours, b"a")]


def test_a_sink_that_takes_nothing_holds_up_its_own_stream_only(pair: Pair) -> None:
    slow, quick = pair.client.open(b"slow"), pair.client.open(b"quick")
    pair.consume = False
    sent = 0
    while room := pair.client.room(slow):
        pair.client.send(slow, b"x" * room)
        sent += room
        pair.settle()
    assert sent == tunnel.WINDOW_BYTES
    assert pair.client.room(quick) > 0
    pair.gateway.consumed(slow, sent)
    pair.settle()
    assert pair.client.room(slow) > 0


def test_without_a_connection_a_bounded_amount_is_kept(pair: Pair) -> None:
    streams = [pair.client.open(b"") for _ in range(100)]
    pair.cut()
    sent = 0
    for stream in streams:
        while room := pair.client.room(stream):
            pair.client.send(stream, bytes(room))
            sent += room
    assert sent <= tunnel.KEPT_BYTES
    assert pair.client.pending() == []
    pair.connect()
    pair.settle()
    assert sum(map(len, pair.got[pair.gateway].values())) == sent


def test_what_was_under_way_when_the_connection_broke_is_sent_again(pair: Pair) -> None:
    stream = pair.client.open(b"")
    pair.client.send(stream, b"first ")
    pair.settle()
    pair.client.send(stream, b"second ")
    pair.send(pair.client)
    pair.cut()
    pair.client.send(stream, b"third")
    pair.connect()
    pair.settle()
    assert pair.got[pair.gateway][stream] == b"first second third"


def test_a_conversation_goes_on_wherever_it_is_cut() -> None:
    def talk(cut_after: int) -> bool:
        """One exchange, cut when so many bytes have arrived in all; False when it had ended before."""
        pair = Pair()
        pair.connect()
        left = cut_after
        stream = pair.client.open(b"target")
        pair.client.send(stream, b"question")
        pair.client.close(pair.client.open(b"nobody"), "not needed")
        answered = False
        moved = 1
        while moved:
            moved = 0
            for end in (pair.client, pair.gateway):
                pair.send(end)
                size = pair.arrive(pair.other(end), left if left > 0 else 1 << 30)
                moved += size
                if 0 < left <= size:
                    pair.cut()
                    pair.connect()
                    moved += 1
                left -= size
            if pair.got[pair.gateway][stream] == b"question" and not answered:
                answered = True
                pair.gateway.send(stream, b"answer")
                pair.gateway.close(stream)
        assert pair.got[pair.client][stream] == b"answer"
        assert len(pair.received(pair.gateway, Opened)) == 2
        assert pair.received(pair.client, Closed) == [Closed(stream, "")]
        return left <= 0

    cut_after = 1
    while talk(cut_after):
        cut_after += 1
    assert cut_after > 100


def test_an_idle_connection_is_kept_alive_and_a_dead_one_is_noticed(pair: Pair) -> None:
    for _ in range(10):
        pair.now += tunnel.KEEPALIVE_S
        for end in (pair.client, pair.gateway):
            assert end.next_deadline() <= pair.now
            assert end.tick(pair.now) == []
        pair.settle()
    # From now on nothing arrives.
    pair.now += tunnel.SILENCE_S
    assert isinstance(pair.client.tick(pair.now)[0], Lost)


def test_a_session_without_a_connection_ends_after_the_grace(pair: Pair) -> None:
    pair.now = 10.0
    pair.cut()
    assert pair.gateway.next_deadline() == 10.0 + GRACE_S
    assert pair.gateway.tick(10.0 + GRACE_S - 0.1) == []
    assert isinstance(pair.gateway.tick(10.0 + GRACE_S)[0], Ended)


def test_an_end_in_good_order_is_told_behind_everything_else(pair: Pair) -> None:
    stream = pair.client.open(b"")
    pair.client.send(stream, b"last words")
    pair.client.end("shutdown")
    pair.settle()
    assert pair.got[pair.gateway][stream] == b"last words"
    assert pair.events[pair.gateway][-1] == Ended("shutdown")


def test_too_many_streams_are_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "MAX_STREAMS", 2)
    for _ in range(2):
        pair.client.open(b"")
    with pytest.raises(TunnelError, match="2 streams are open"):
        pair.client.open(b"")


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(tunnel._RECORD.pack(99, 0, 0), id="unknown kind"),
        pytest.param(tunnel._RECORD.pack(tunnel._OPEN, 2, 0), id="a stream number of our own"),
        pytest.param(tunnel._RECORD.pack(tunnel._OPEN, 1, 1 << 40), id="endless text"),
        pytest.param(tunnel._RECORD.pack(tunnel._ACKNOWLEDGE, 0, 1000), id="more than was sent"),
    ],
)
def test_what_breaks_the_protocol_is_refused(record: bytes) -> None:
    gateway = Tunnel(client=False, grace_s=GRACE_S, now=0.0)
    gateway.resume(0, 0.0)
    with pytest.raises(TunnelError):
        gateway.receive(record, 0.0)


def test_more_than_the_window_is_refused(pair: Pair) -> None:
    stream = pair.gateway.open(b"")
    pair.settle()
    with pytest.raises(TunnelError, match="window"):
        pair.gateway.receive(tunnel._RECORD.pack(tunnel._DATA, stream, tunnel.WINDOW_BYTES + 1), 0.0)


def test_an_acknowledgement_that_is_sent_again_is_out_of_date_and_harmless(pair: Pair) -> None:
    stream = pair.client.open(b"")
    pair.settle()
    # The gateway acknowledges the first part, then gets another one, and neither word of it arrives.
    for size in (tunnel.ACKNOWLEDGE_BYTES, 1000):
        pair.client.send(stream, bytes(size))
        pair.send(pair.client)
        pair.arrive(pair.gateway)
    pair.cut()
    pair.connect()
    pair.settle()
    assert len(pair.got[pair.gateway][stream]) == tunnel.ACKNOWLEDGE_BYTES + 1000


def test_a_resumption_that_has_lost_something_is_refused(pair: Pair) -> None:
    stream = pair.client.open(b"")
    for _ in range(3):
        pair.client.send(stream, bytes(tunnel.ACKNOWLEDGE_BYTES))
        pair.settle()
    pair.cut()
    with pytest.raises(TunnelError, match="are said to have arrived"):
        pair.client.resume(0, 0.0)


STEP = st.one_of(
    st.tuples(st.just("open"), st.booleans(), st.just(0)),
    st.tuples(st.just("send"), st.booleans(), st.integers(1, 300_000)),
    st.tuples(st.just("close"), st.booleans(), st.just(0)),
    st.tuples(st.just("wire"), st.booleans(), st.integers(1, 400_000)),
    st.tuples(st.just("arrive"), st.booleans(), st.integers(1, 400_000)),
    st.tuples(st.just("cut"), st.booleans(), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEP, max_size=60), seed=st.integers(0, 1 << 30))
def test_every_stream_is_whole_and_in_order_wherever_the_connection_breaks(
    steps: list[tuple[str, bool, int]], seed: int
) -> None:
    rng = random.Random(seed)
    pair = Pair()
    pair.connect()
    sent: dict[Tunnel, dict[int, bytearray]] = {pair.client: {}, pair.gateway: {}}
    closed: set[int] = set()
    known: dict[Tunnel, set[int]] = {pair.client: set(), pair.gateway: set()}
    for action, of_client, size in steps:
        end = pair.client if of_client else pair.gateway
        if action == "open":
            known[end].add(end.open(b"t"))
        elif action == "send":
            known[end] |= {event.stream for event in pair.events[end] if isinstance(event, Opened)}
            with_room = [stream for stream in sorted(known[end]) if end.room(stream)]
            if with_room:
                stream = rng.choice(with_room)
                data = rng.randbytes(min(size, end.room(stream)))
                end.send(stream, data)
                sent[end].setdefault(stream, bytearray()).extend(data)
        elif action == "close" and known[end]:
            stream = rng.choice(sorted(known[end]))
            end.close(stream)
            closed.add(stream)
        elif action == "wire":
            pair.send(end, size)
        elif action == "arrive":
            pair.arrive(end, size)
        elif action == "cut":
            pair.cut()
            pair.connect()
    pair.cut()
    pair.connect()
    pair.settle()
    for end, streams in sent.items():
        for stream, data in streams.items():
            got = pair.got[pair.other(end)][stream]
            if stream in closed:  # the other end may have given it up before all had come
                assert data.startswith(got)
            else:
                assert got == data
