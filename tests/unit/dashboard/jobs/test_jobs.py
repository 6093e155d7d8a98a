"""Which jobs are to be stopped, and for how long."""

from __future__ import annotations

from shoal_dashboard.jobs.jobs import stopping_since
from shoal_proto.v1 import gcs_pb2 as pb


def test_a_stop_counts_from_when_it_was_first_seen_until_the_job_ends() -> None:
    runs = pb.SubmissionInfo(submission_id="runs")
    stops = pb.SubmissionInfo(submission_id="stops", stop_requested=True)
    first = stopping_since({}, [runs, stops], 10.0)
    assert first == {"stops": 10.0}
    assert stopping_since(first, [runs, stops], 40.0) == {"stops": 10.0}
    assert stopping_since(first, [runs], 41.0) == {}
