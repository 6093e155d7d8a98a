"""A submission as it is told."""

from __future__ import annotations

import json

from shoal_dashboard.jobs.details import of_all
from shoal_proto.v1 import gcs_pb2 as pb


def test_a_request_that_no_answer_can_have_does_not_break_the_list() -> None:
    request = {
        "entrypoint": "echo \ud83d",
        "metadata": {"\ude00": "ü \U0001f600"},
        "runtime_env": {"config": {"setup_timeout_seconds": float("nan")}},
    }
    kept = pb.SubmissionInfo(
        submission_id="s3", request=json.dumps(request).encode(), state=pb.SUBMISSION_STATE_PENDING
    )
    (told,) = json.loads(json.dumps(of_all([kept], [], {}), ensure_ascii=False, allow_nan=False).encode())
    assert told["entrypoint"] == "echo ?"
    assert told["metadata"] == {"?": "ü \U0001f600"}
    assert told["runtime_env"] == {"config": {"setup_timeout_seconds": "NaN"}}
