"""Where a copy is looked for, in virtual time: the home, the GCS and the sources are scripted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal_common.kinds import StoreErrorKind
from shoal_raylet.objects.search import (
    FETCH_TIMEOUT_S,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    AskGcs,
    AskHome,
    Begin,
    BlobUnreadable,
    GcsAnswered,
    GiveUp,
    HomeAnswered,
    HomeGone,
    MakeRoom,
    NoAnswer,
    Pause,
    PauseOver,
    ReadBlob,
    ReadFrom,
    RoomMade,
    Search,
    SearchAction,
    SearchEvent,
    SourcesFailed,
)

HERE, HOME, NEW_HOME, A, B = (bytes([number]) * 16 for number in range(5))
LATER = HomeAnswered(10, later=True)


class Looking:
    """One search; pauses pass by themselves where ``wait`` is asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.search = Search(HOME, HERE, self.now)

    def after(self, *events: SearchEvent) -> SearchAction:
        """What is to be done after the last of them."""
        for event in events:
            action = self.search.handle(event, self.now)
            self.search.validate()
        return action

    def wait(self, action: SearchAction) -> SearchAction:
        assert isinstance(action, Pause)
        self.now += action.seconds
        return self.after(PauseOver())


@pytest.fixture
def looking() -> Iterator[Looking]:
    looking = Looking()
    yield looking
    looking.search.validate()


def found(*sources: bytes, size: int = 10) -> HomeAnswered:
    return HomeAnswered(size, b"owner", sources)


def test_the_home_tells_from_whom_to_read_once_there_is_room(looking: Looking) -> None:
    assert looking.after(Begin()) == AskHome(HOME, ())
    assert looking.after(found(A, B)) == MakeRoom(10, b"owner")
    assert looking.after(RoomMade()) == ReadFrom((A, B))


def test_a_blob_is_read_where_no_node_has_it(looking: Looking) -> None:
    looking.after(Begin(), HomeAnswered(10, b"owner", blob_key="blob", blob_offset=3))
    assert looking.after(RoomMade()) == ReadBlob("blob", 3)


def test_sources_that_failed_are_named_until_something_arrives(looking: Looking) -> None:
    looking.after(Begin(), found(A), RoomMade())
    assert looking.after(SourcesFailed(progress_at=0.0)) == AskHome(HOME, (A,))
    assert looking.after(found(B)) == ReadFrom((B,)), "there is room already"
    assert looking.after(SourcesFailed(progress_at=0.0)) == AskHome(HOME, (A, B))
    looking.after(found(A))
    assert looking.after(SourcesFailed(progress_at=1.0)) == AskHome(HOME, (A,))


def test_when_nobody_delivers_all_may_be_tried_again_after_a_pause(looking: Looking) -> None:
    looking.after(Begin(), found(A), RoomMade(), SourcesFailed(0.0))
    pause = looking.after(LATER)
    assert pause == Pause(FIRST_PAUSE_S)
    assert looking.search.problem == "none of the nodes that have it delivers"
    assert looking.wait(pause) == AskHome(HOME, ())
    assert looking.after(found(A)) == ReadFrom((A,))
    assert looking.search.problem == ""


def test_pauses_grow_to_a_bound_and_begin_anew_when_something_has_arrived(looking: Looking) -> None:
    looking.after(Begin())
    pauses = []
    for _ in range(10):
        action = looking.after(NoAnswer("it does not answer"))
        assert isinstance(action, Pause)
        pauses.append(action.seconds)
        looking.wait(action)
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    looking.after(found(A), RoomMade(), SourcesFailed(progress_at=looking.now + 1))
    assert looking.after(LATER) == Pause(FIRST_PAUSE_S)


def test_without_progress_it_ends_and_says_what_kept_it(looking: Looking) -> None:
    action = looking.after(Begin())
    while not isinstance(action, GiveUp):
        action = looking.after(NoAnswer("the home sleeps"))
        if isinstance(action, Pause):
            action = looking.wait(action)
    assert action.error.kind is StoreErrorKind.FETCH_TIMED_OUT and "the home sleeps" in action.error.text
    assert FETCH_TIMEOUT_S <= looking.now <= FETCH_TIMEOUT_S + LONGEST_PAUSE_S


def test_waiting_for_room_is_no_lack_of_progress(looking: Looking) -> None:
    looking.after(Begin(), found(A))
    looking.now = 10 * FETCH_TIMEOUT_S
    looking.after(RoomMade(), SourcesFailed(progress_at=0.0))
    assert looking.after(LATER) == Pause(FIRST_PAUSE_S)


def test_a_dead_homes_object_is_where_the_gcs_says(looking: Looking) -> None:
    assert looking.after(Begin(), HomeGone("it was stopped")) == AskGcs()
    assert looking.after(GcsAnswered(home=NEW_HOME)) == AskHome(NEW_HOME, ())
    assert looking.search.home == NEW_HOME
    looking.after(found(NEW_HOME))
    assert looking.after(RoomMade()) == ReadFrom((NEW_HOME,))


def test_what_a_dead_home_had_spilled_is_read_from_its_blob(looking: Looking) -> None:
    looking.after(Begin(), HomeGone("x"))
    assert looking.after(GcsAnswered(size=10, blob_key="blob", blob_offset=3)) == MakeRoom(10, b"")
    assert looking.after(RoomMade()) == ReadBlob("blob", 3)


def test_what_is_nowhere_is_lost_and_the_error_says_what_its_home_has_done(looking: Looking) -> None:
    action = looking.after(Begin(), HomeGone("its machine burned"), GcsAnswered())
    assert isinstance(action, GiveUp) and action.error.kind is StoreErrorKind.OBJECT_LOST
    assert HOME.hex() in action.error.text and "its machine burned" in action.error.text


@pytest.mark.parametrize("place", [GcsAnswered(), GcsAnswered(home=HOME), GcsAnswered(home=HERE)])
def test_a_home_that_does_not_have_it_is_not_asked_again(looking: Looking, place: GcsAnswered) -> None:
    assert looking.after(Begin(), HomeAnswered()) == AskGcs()
    action = looking.after(place)
    assert isinstance(action, GiveUp) and "does not have it any more" in action.error.text


def test_a_home_that_the_gcs_believes_alive_is_asked_again_after_a_pause(looking: Looking) -> None:
    """Without one, the two questions would chase each other as fast as they are answered."""
    looking.after(Begin(), HomeGone("x"))
    assert looking.wait(looking.after(GcsAnswered(home=HOME))) == AskHome(HOME, ())


def test_a_gcs_that_does_not_answer_is_asked_again(looking: Looking) -> None:
    looking.after(Begin(), HomeAnswered())
    assert looking.wait(looking.after(NoAnswer("the GCS sleeps"))) == AskGcs()


def test_a_blob_that_cannot_be_read_is_looked_for_anew(looking: Looking) -> None:
    looking.after(Begin(), HomeAnswered(10, b"owner", blob_key="blob"), RoomMade())
    pause = looking.after(BlobUnreadable("the service is away"))
    assert looking.search.problem == "the service is away"
    assert looking.wait(pause) == AskHome(HOME, ())
    assert looking.after(found(HOME)) == ReadFrom((HOME,)), "its home has it in memory again"


def test_an_object_that_was_made_anew_with_another_size_is_not_mixed_with_the_old_one(looking: Looking) -> None:
    looking.after(Begin(), found(A), RoomMade(), SourcesFailed(0.0))
    action = looking.after(found(B, size=11))
    assert isinstance(action, GiveUp) and "another size" in action.error.text
