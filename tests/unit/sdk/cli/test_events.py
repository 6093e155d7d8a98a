from __future__ import annotations

from shoal._cli.events import told
from shoal_common.events.node_events import ClusterEvent, encode
from shoal_proto.v1 import events_pb2, gcs_pb2


def test_an_event_says_what_it_is_of_and_why() -> None:
    node = gcs_pb2.NodeInfo(node_id=b"n" * 16, host="h", state=gcs_pb2.NODE_STATE_DEAD, death_reason="silent")
    assert told("node", events_pb2.NodeEvent(node=node).SerializeToString()) == {
        "what": "node",
        "id": (b"n" * 16).hex(),
        "name": "h",
        "state": "DEAD",
        "why": "silent",
    }
    actor = gcs_pb2.ActorInfo(actor_id=b"a" * 16, class_name="A", state=gcs_pb2.ACTOR_STATE_RESTARTING)
    actor.exit.detail = "killed by SIGKILL"
    found = told("actor", events_pb2.ActorEvent(actor=actor).SerializeToString())
    assert (found["state"], found["name"], found["why"]) == ("RESTARTING", "A", "killed by SIGKILL")
    job = gcs_pb2.JobInfo(job_id=b"\0\0\0\1", entrypoint="python x.py", end_unix_ms=1)
    assert told("job", events_pb2.JobEvent(job=job).SerializeToString())["state"] == "FINISHED"
    job.failure = "KeyError: 'x'"
    failed = told("job", events_pb2.JobEvent(job=job).SerializeToString())
    assert (failed["state"], failed["why"]) == ("FAILED", "KeyError: 'x'")
    spilled = ClusterEvent(5, "OBJECTS_SPILLED", "INFO", "RAYLET", "Spilled 3 objects", {"node_id": "aa"})
    found = told("happened", encode(spilled))
    assert (found["what"], found["id"], found["state"], found["why"]) == (
        "node",
        "aa",
        "OBJECTS_SPILLED",
        "Spilled 3 objects",
    )
