"""Objects: put, get, wait, ownership, memory."""

from __future__ import annotations

from parity.row import Section

OBJECTS_FILE = "e2e/compat/test_objects.py"
WAIT = "e2e/compat/test_wait.py"
COUNTING = "e2e/compat/test_refcounting.py"
ASYNC = "e2e/compat/test_async_actors.py"
LINEAGE = "chaos/test_lineage.py"
OWNER = "chaos/test_owner_death.py"

OBJECTS = Section("Objects")
row, differs, missing = OBJECTS.works, OBJECTS.differs, OBJECTS.missing

row(
    "`put(value)`",
    "a ref to a copy that never changes; a ref is a `TypeError`",
    f"{OBJECTS_FILE}::test_value_survives_put_and_task",
    f"{OBJECTS_FILE}::test_putting_copies",
    f"{OBJECTS_FILE}::test_put_a_reference",
)
row(
    "`get(refs, timeout)`",
    "values in order; the first error is raised at once; late is `GetTimeoutError`; anything else a `ValueError`",
    f"{OBJECTS_FILE}::test_get_keeps_the_order",
    f"{OBJECTS_FILE}::test_get_raises_the_first_error_without_waiting_for_the_rest",
    f"{OBJECTS_FILE}::test_get_timeout",
    f"{OBJECTS_FILE}::test_get_without_waiting",
    f"{OBJECTS_FILE}::test_get_something_else",
)
differs(
    "`wait(refs, num_returns, timeout, fetch_local)`",
    "(ready, rest) in the order given, at most `num_returns` ready",
    f"{WAIT}::test_order_of_the_input_is_kept",
    f"{WAIT}::test_never_more_than_asked_for",
    f"{WAIT}::test_timeout",
    f"{WAIT}::test_wrong_arguments",
    "integration/test_cluster_utils.py::test_wait_brings_objects_here_unless_told_otherwise",
    how="over the gateway `fetch_local` brings objects to the gateway's node",
)
row(
    "`await ref`, `ref.future()`, `ref.as_future()`",
    "for asyncio and `concurrent.futures`; cancelling one cancels no task",
    f"{ASYNC}::test_await_in_the_driver",
    f"{ASYNC}::test_concurrent_future",
    f"{ASYNC}::test_as_future",
    "integration/test_sdk_driver_use.py::TestFutures::test_cancelled_future_harms_nobody",
)
differs(
    "`hex()`, `task_id()`, `job_id()`, `is_nil()` of refs",
    "and equality by id",
    f"{OBJECTS_FILE}::test_parts_of_a_reference",
    f"{OBJECTS_FILE}::test_references_are_values",
    how="ids have lengths of their own, and make no refs",
)
row(
    "ownership",
    "who made the ref owns the object; with it the object is lost to all: `OwnerDiedError`",
    f"{OWNER}::test_each_kind_of_object_says_that_its_owner_has_died",
    f"{COUNTING}::test_object_of_a_dead_owner",
)
row(
    "borrowing",
    "refs inside arguments, results and objects keep what they name",
    f"{COUNTING}::test_nested_reference_is_borrowed_by_the_task",
    f"{COUNTING}::test_outer_object_keeps_the_inner_one",
    f"{COUNTING}::test_reference_passed_on_by_a_borrower",
    f"{COUNTING}::test_put_object_goes_with_its_reference",
)
row(
    "refs pickled by hand or captured",
    "keep what they name; a setting forbids it",
    f"{OBJECTS_FILE}::test_reference_pickled_by_hand",
    f"{OBJECTS_FILE}::test_reference_in_a_closure",
    f"{OBJECTS_FILE}::test_reference_pickled_by_hand_where_that_is_forbidden",
)
differs(
    "zero copy",
    "arrays of the store are views that cannot be written; torch on request",
    f"{OBJECTS_FILE}::test_arrays_from_the_store_are_read_only",
    f"{OBJECTS_FILE}::test_arrays_from_the_store_share_memory",
    f"{OBJECTS_FILE}::test_arrow_tables",
    how="tensors of torch are copied",
)
row(
    "objects filled in place (Shoal's own)",
    "`experimental.create_object`: made of a known size, filled where it lies, sealed",
    "integration/test_filled_objects.py::test_an_object_is_filled_where_it_lies",
    "integration/test_filled_objects.py::test_what_can_still_be_written_is_not_sealed",
    "integration/test_filled_objects.py::test_what_is_not_sealed_gives_its_memory_back",
)
row(
    "serializers of one's own",
    "`register_serializer`, `deregister_serializer`, `inspect_serializability`",
    f"{OBJECTS_FILE}::test_custom_serializer",
    "e2e/compat/test_util.py::test_inspect_serializability",
)
row(
    "spilling",
    "what finds no room goes to the disk or a bucket and comes back when it is read; a full disk is an error",
    f"{OBJECTS_FILE}::test_more_than_the_store_holds_is_spilled_and_restored",
    "integration/test_sdk_objects.py::test_spilling_to_a_directory_of_ones_own",
    f"{OBJECTS_FILE}::test_a_full_disk_is_an_error_that_ends_when_references_do",
    "integration/test_objectstore_bucket.py::test_a_blob_is_one_object_that_begins_with_its_bytes",
)
row(
    "reconstruction",
    "a lost result is made again by its task, and what that needs; never what was put; bounded by `max_lineage_bytes`",
    f"{LINEAGE}::test_a_lost_result_is_made_again",
    f"{LINEAGE}::test_a_chain_is_made_again_from_its_beginning_although_nobody_holds_that",
    f"{LINEAGE}::test_results_of_actors_are_made_again_by_calls_that_may_be_repeated",
    f"{LINEAGE}::test_what_cannot_be_made_again_says_why",
    f"{LINEAGE}::test_beyond_max_lineage_bytes_the_oldest_are_not_made_again_and_say_so",
)
row(
    "copies on other nodes",
    "go before anything is spilled",
    "unit/raylet/objects/test_copies.py::test_copies_go_before_anything_is_spilled_and_their_home_is_told",
)
missing(
    "`_private.internal_api.free(refs)`", "deletes objects at once", why="private in Ray; objects go with their refs"
)
