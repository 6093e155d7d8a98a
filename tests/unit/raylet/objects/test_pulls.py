from __future__ import annotations

import random
from collections import Counter
from typing import Any

from shoal_raylet.objects.entry import Changed
from shoal_raylet.objects.pulls import (
    CHUNK_BYTES,
    MAX_BYTES_UNDER_WAY,
    SOURCE_STALL_S,
    WINDOW_CHUNKS,
    AskChunk,
    EndChunks,
    HangUp,
    PullAction,
    Pulled,
    PullManager,
    SourcesWanted,
)

A, B = b"node-A", b"node-B"


class Pulls:
    """The manager with scripted sources."""

    def __init__(self) -> None:
        self.manager = PullManager()
        self.now = 0.0
        #: What each source owes, oldest first.
        self.owed: dict[bytes, list[AskChunk]] = {}
        self.happened: list[PullAction] = []
        #: How often whoever waits for parts of an object was told to ask again.
        self.changed: Counter[bytes] = Counter()

    def run(self, actions: list[PullAction]) -> None:
        for action in actions:
            match action:
                case AskChunk(source):
                    self.owed.setdefault(source, []).append(action)
                case EndChunks(source, object_id):
                    self.owed[source] = [ask for ask in self.owed.get(source, []) if ask.object_id != object_id]
                case Changed(object_id):
                    self.changed[object_id] += 1
                case _:
                    self.happened.append(action)

    def begin(self, name: bytes, chunks: float, *sources: bytes, urgent: bool = True) -> None:
        size = int(chunks * CHUNK_BYTES)
        self.run(self.manager.begin(name, size, list(sources), urgent, self.now))

    def deliver(self, source: bytes) -> AskChunk:
        ask = self.owed[source].pop(0)
        self.run(self.manager.arrived(source, ask.object_id, ask.offset, self.now))
        return ask

    def lose(self, source: bytes) -> None:
        self.owed.pop(source, None)
        self.run(self.manager.source_lost(source, self.now))

    def take(self) -> list[Any]:
        happened, self.happened = self.happened, []
        return happened


def test_an_object_comes_chunk_by_chunk() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 2.5, A)
    assert [(ask.offset, ask.length) for ask in pulls.owed[A]] == [
        (0, CHUNK_BYTES),
        (CHUNK_BYTES, CHUNK_BYTES),
        (2 * CHUNK_BYTES, CHUNK_BYTES // 2),
    ]
    pulls.deliver(A)
    assert pulls.manager.has(b"x", 100, CHUNK_BYTES - 100)
    assert not pulls.manager.has(b"x", 100, CHUNK_BYTES)
    pulls.deliver(A)
    assert pulls.take() == []
    pulls.deliver(A)
    assert pulls.take() == [Pulled(b"x")]
    assert pulls.manager.bytes_under_way == 0
    assert pulls.manager.next_deadline() is None


def test_an_empty_object_is_there_at_once() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 0, A)
    assert pulls.take() == [Pulled(b"x")]


def test_a_source_owes_no_more_than_its_window() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 20, A)
    assert len(pulls.owed[A]) == WINDOW_CHUNKS
    pulls.deliver(A)
    assert len(pulls.owed[A]) == WINDOW_CHUNKS


def test_the_faster_source_delivers_more() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 30, A, B)
    delivered = {A: 0, B: 0}
    while not pulls.take():
        for source in (A, A, A, B):
            if pulls.owed[source]:
                pulls.deliver(source)
                delivered[source] += 1
    assert delivered[A] + delivered[B] == 30
    assert delivered[A] > 2 * delivered[B]


def test_what_a_lost_source_owed_is_asked_of_another() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 6, A, B)
    pulls.deliver(A)
    pulls.lose(A)
    assert pulls.take() == []
    while not (ended := pulls.take()):
        pulls.deliver(B)
    assert ended == [Pulled(b"x")]


def test_without_any_source_others_are_wanted_and_what_has_come_is_kept() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 3, A)
    pulls.deliver(A)
    pulls.lose(A)
    assert pulls.take() == [SourcesWanted(b"x")]
    pulls.run(pulls.manager.add_sources(b"x", [B], pulls.now))
    assert [ask.offset for ask in pulls.owed[B]] == [CHUNK_BYTES, 2 * CHUNK_BYTES]


def test_one_that_does_not_have_it_is_left_out() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 1, A)
    pulls.run(pulls.manager.refused(A, b"x", pulls.now))
    assert pulls.take() == [SourcesWanted(b"x")]


def test_one_that_has_it_no_more_is_told_to_let_go_of_what_it_has_sent_before() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 8, A)
    pulls.deliver(A)
    assert EndChunks(A, b"x") in pulls.manager.refused(A, b"x", pulls.now)


def test_a_silent_source_is_given_up() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 8, A, B)
    pulls.now = SOURCE_STALL_S - 1
    pulls.deliver(B)
    deadline = pulls.manager.next_deadline()
    assert deadline is not None
    pulls.now = deadline
    pulls.run(pulls.manager.tick(pulls.now))
    assert pulls.take() == [HangUp(A)]
    while not (ended := pulls.take()):
        pulls.deliver(B)
    assert ended == [Pulled(b"x")]


def test_a_source_that_sends_anything_lives() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 1, A)
    pulls.now = SOURCE_STALL_S - 1
    pulls.manager.heard(A, pulls.now)
    pulls.now = SOURCE_STALL_S + 1
    pulls.run(pulls.manager.tick(pulls.now))
    assert pulls.take() == []


def test_bytes_under_way_are_bounded_and_who_waits_comes_first() -> None:
    pulls = Pulls()
    sources = [b"node" + bytes([number]) for number in range(20)]
    per_pull = WINDOW_CHUNKS * CHUNK_BYTES
    for number, source in enumerate(sources):
        pulls.begin(b"ahead" + bytes([number]), WINDOW_CHUNKS, source, urgent=False)
    full = MAX_BYTES_UNDER_WAY // per_pull
    assert pulls.manager.bytes_under_way == MAX_BYTES_UNDER_WAY
    pulls.begin(b"awaited", 1, A)
    pulls.manager.hurry(b"ahead" + bytes([full + 1]))
    assert A not in pulls.owed
    pulls.deliver(sources[0])
    assert len(pulls.owed[A]) == 1
    pulls.deliver(sources[0])
    assert sources[full] not in pulls.owed
    assert len(pulls.owed[sources[full + 1]]) == 1


def test_a_cancelled_pull_leaves_nothing() -> None:
    pulls = Pulls()
    pulls.begin(b"x", 8, A, B)
    pulls.run(pulls.manager.cancel(b"x", pulls.now))
    assert pulls.owed == {A: [], B: []}
    assert pulls.manager.bytes_under_way == 0
    assert len(pulls.manager) == 0
    assert pulls.manager.next_deadline() is None
    assert pulls.manager.arrived(A, b"x", 0, pulls.now) == [], "a chunk that was on its way"


def test_everything_arrives_whatever_fails() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        pulls = Pulls()
        sources = [b"node" + bytes([number]) for number in range(5)]
        names = [b"object" + bytes([number]) for number in range(12)]
        for name in names:
            pulls.begin(name, rng.choice([0.03, 1, 2.2, 9]), *rng.sample(sources, 2), urgent=rng.random() < 0.5)
        done: list[bytes] = []
        while len(done) < len(names):
            pulls.now += 0.1
            owing = [source for source in sources if pulls.owed.get(source)]
            chance = rng.random()
            if chance < 0.1:
                pulls.lose(rng.choice(sources))
            elif chance < 0.2:
                pulls.manager.hurry(rng.choice(names))
            elif owing:
                pulls.deliver(rng.choice(owing))
            for event in pulls.take():
                if isinstance(event, Pulled):
                    done.append(event.object_id)
                elif isinstance(event, SourcesWanted):
                    pulls.run(pulls.manager.add_sources(event.object_id, rng.sample(sources, 2), pulls.now))
        assert sorted(done) == sorted(names)
        assert pulls.manager.bytes_under_way == 0
        assert not any(pulls.owed.values())
