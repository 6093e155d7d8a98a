"""The table of the crash matrix is whole, and says what can be seen."""

from __future__ import annotations

from chaos.matrix.table import CHOSEN, TABLE, Ends, Fault, Impossible, Moment, Sees, Victim, allows, cells

from shoal import exceptions


def test_every_combination_has_one_cell() -> None:
    assert set(TABLE) == set(Victim) and all(set(rows) == set(Moment) for rows in TABLE.values())
    assert len({str(cell) for cell in cells()}) == len(Victim) * len(Fault) * len(Moment)


def test_a_cell_names_a_result_a_known_error_or_a_reason() -> None:
    for cell in cells():
        match cell.outcome:
            case Impossible(why):
                assert why
            case Sees(again, once):
                names = {words.split()[0] for words in (*again, *once)}
                assert again and once and all(name == "result" or hasattr(exceptions, name) for name in names), cell
            case Ends():
                assert cell.victim is Victim.DRIVER


def test_a_chosen_tenth_has_every_victim_fault_and_moment_that_can_be() -> None:
    possible = [cell for cell in cells() if not isinstance(cell.outcome, Impossible)]
    chosen = [cell for cell in possible if cell.chosen]
    assert sum(map(len, CHOSEN.values())) == len(chosen), "only what is possible"
    assert len(possible) / 10 <= len(chosen) <= len(possible) / 8
    for part in ("victim", "fault", "moment"):
        assert {getattr(cell, part) for cell in chosen} == {getattr(cell, part) for cell in possible}


def test_an_error_is_allowed_by_its_name_and_its_words() -> None:
    allowed = ("result", "WorkerCrashedError SIGKILL")
    assert allows(allowed, "result")
    assert allows(allowed, "WorkerCrashedError: it was killed by SIGKILL")
    assert not allows(allowed, "WorkerCrashedError: it ended with 1")
    assert not allows(allowed, "NodeDiedError: killed by SIGKILL")
    assert not allows(("result",), "hung: nothing came")
