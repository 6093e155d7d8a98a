from __future__ import annotations

from dataclasses import replace

from shoal_gcs.objects.table import REPORTS_AGAIN_WITHIN_S, REPORTS_WITHIN_S, Batch, Location, LocationTable

A, B, C = b"node-A", b"node-B", b"node-C"
JOB = b"job1"


def blob(name: str, *object_ids: bytes, node_id: bytes = A, job_id: bytes = JOB) -> Batch:
    key = f"spill/{name}"
    objects = {object_id: Location(blob_key=key, offset=10 * i, size=10) for i, object_id in enumerate(object_ids)}
    return Batch(name, job_id, node_id, key, objects)


def copies(name: str, node_id: bytes, *object_ids: bytes) -> Batch:
    return Batch(name, JOB, node_id, "", dict.fromkeys(object_ids, Location(node_id=node_id)))


def test_a_spilled_object_is_found_in_its_blob() -> None:
    table = LocationTable()
    table.add(blob("b", b"x", b"y"))
    assert table.locate(b"y") == Location(blob_key="spill/b", offset=10, size=10)
    assert table.locate(b"z") is None
    assert table.forget_blob("b")
    assert not table.forget_blob("b")
    assert table.locate(b"x") is None


def test_a_node_that_has_it_is_better_than_a_blob() -> None:
    table = LocationTable()
    table.add(copies("c", B, b"x"))
    table.add(blob("b", b"x"))
    assert table.locate(b"x") == Location(node_id=B)
    assert table.node_died(B, [C], 0.0)
    place = table.locate(b"x")
    assert place is not None
    assert place.blob_key


def test_what_is_in_blobs_of_dead_nodes_and_whose_owners_nodes_are_dead_is_needed_by_nobody() -> None:
    table = LocationTable()
    table.add(blob("b", b"unknown", b"there", b"elsewhere"))
    table.add(blob("living", b"other", node_id=C))
    owners = {b"there": A, b"elsewhere": B, b"other": B}
    for batch in table._blobs.values():
        for object_id in batch.objects.keys() & owners.keys():
            batch.objects[object_id] = replace(batch.objects[object_id], owner_node_id=owners[object_id])
    assert table.ownerless({A, B, C}) == []
    assert table.ownerless({B, C}) == [b"there"], "the owner of the other one lives on elsewhere"
    assert table.ownerless({C}) == [b"there", b"elsewhere"], "a node that lives frees what it has itself"


def test_of_an_owner_that_dies_alone_what_dead_nodes_have_spilled_is_free() -> None:
    table = LocationTable()
    for row, name, node_id in (("b", b"x", A), ("elsewhere", b"y", B), ("others", b"z", A)):
        table.add(blob(row, name, node_id=node_id))
    for batch in table._blobs.values():
        for object_id in batch.objects.keys() - {b"z"}:
            batch.objects[object_id] = replace(batch.objects[object_id], owner_id=b"owner")
    assert table.owned_by(b"owner", {B}) == [b"x"], "a node that lives frees what it has itself"
    assert table.owned_by(b"owner", {A, B}) == []


def test_a_report_that_comes_twice_counts_once() -> None:
    table = LocationTable()
    table.add(blob("b", b"x"))
    table.add(blob("b", b"x"))
    assert [group.row_id for group in table.free([b"x"]).batches] == ["b"]
    assert table.locate(b"x") is None


def test_the_last_object_takes_its_blob_along() -> None:
    table = LocationTable()
    table.add(blob("b", b"x", b"y"))
    table.add(copies("c", B, b"y"))
    freed = table.free([b"x", b"unknown"])
    assert (freed.batches, freed.copies) == ([], {})
    freed = table.free([b"y"])
    assert [group.row_id for group in freed.batches] == ["b", "c"]
    assert freed.copies == {B: [b"y"]}
    assert not table.jobs()


def test_a_job_takes_all_its_rows_along() -> None:
    table = LocationTable()
    table.add(blob("b", b"x"))
    table.add(copies("c", B, b"y"))
    table.add(blob("other", b"z", job_id=b"job2"))
    assert [group.row_id for group in table.forget_job(JOB)] == ["b", "c"]
    assert table.jobs() == {b"job2"}
    assert table.locate(b"x") is None
    assert table.locate(b"z") is not None


def test_after_a_death_all_reports_are_awaited() -> None:
    table = LocationTable()
    assert table.is_settled(0.0)
    table.node_died(A, [B, C], 0.0)
    table.reported(B, A)
    assert not table.is_settled(1.0)
    assert table.awaited() == {C}
    table.reported(C, A)
    assert table.is_settled(1.0)


def test_who_dies_too_or_is_silent_is_not_awaited_for_ever() -> None:
    table = LocationTable()
    table.node_died(A, [B, C], 0.0)
    table.reported(B, A)
    table.node_died(C, [B], 1.0)
    assert not table.is_settled(REPORTS_WITHIN_S)
    assert table.is_settled(1.0 + REPORTS_WITHIN_S)


def test_what_an_earlier_gcs_did_not_hear_of_is_awaited_too() -> None:
    table = LocationTable()
    table.taken_over(1.0)
    assert not table.is_settled(REPORTS_AGAIN_WITHIN_S)
    assert table.is_settled(1.0 + REPORTS_AGAIN_WITHIN_S)
