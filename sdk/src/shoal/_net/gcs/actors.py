"""ActorService, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal._net.gcs.errors import NotFound
from shoal._net.gcs.records import ActorRecord, ActorSpec
from shoal_common.rpc.values import amounts, exit_kind, worker_address
from shoal_common.states import ActorState
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling

#: One long poll, in seconds.
POLL_S = 30.0
#: How much longer than a long poll its answer may take, in seconds.
_ANSWER_S = 30.0

#: Called in a thread of gRPC's; None = it went well.
Done = Callable[[Exception | None], None]


class Actors:
    """See ``client`` for what all methods raise. Those with ``done`` return at once."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def create(self, spec: ActorSpec) -> None:
        """Returns when the actor is registered; it is started afterwards. Idempotent. Raises: AlreadyExists."""
        self._gcs.call("Actor", "CreateActor", _creation(spec))

    def begin_create(self, spec: ActorSpec, done: Done) -> None:
        self._gcs.call_async("Actor", "CreateActor", _creation(spec), lambda _, error: done(error))

    def begin_wait(
        self,
        actor_id: bytes,
        known_version: int,
        wait_s: float,
        done: Callable[[ActorRecord | None, Exception | None], None],
    ) -> None:
        """Answered when the actor's version is beyond ``known_version``, or after ``wait_s`` seconds, at most
        ``POLL_S``; NotFound is an error."""
        request = gcs_pb2.WaitActorRequest(actor_id=actor_id, known_version=known_version, wait_ms=int(wait_s * 1000))

        def answered(response: gcs_pb2.WaitActorResponse | None, error: Exception | None) -> None:
            done(None if response is None else _record(response.actor), error)

        self._gcs.call_async("Actor", "WaitActor", request, answered, timeout_s=wait_s + _ANSWER_S)

    def find(self, actor_id: bytes) -> ActorRecord | None:
        """As it is now; None = it is not registered yet, or long forgotten."""
        try:
            response: gcs_pb2.WaitActorResponse = self._gcs.call(
                "Actor", "WaitActor", gcs_pb2.WaitActorRequest(actor_id=actor_id)
            )
        except NotFound:
            return None
        return _record(response.actor)

    def named(self, name: str, namespace: str) -> bytes:
        """The payload of the handle of a living actor. Raises: NotFound."""
        request = gcs_pb2.GetNamedActorRequest(name=name, namespace=namespace)
        response: gcs_pb2.GetNamedActorResponse = self._gcs.call("Actor", "GetNamedActor", request)
        return response.handle

    def list(self, *, named_only: bool = False, namespace: str = "") -> list[ActorRecord]:
        """The newest first. ``named_only``: neither unnamed nor dead ones. ``namespace`` empty: of all."""
        request = gcs_pb2.ListActorsRequest(named_only=named_only, namespace=namespace)
        response: gcs_pb2.ListActorsResponse = self._gcs.call("Actor", "ListActors", request)
        return [_record(info) for info in response.actors]

    def kill(self, actor_id: bytes, *, no_restart: bool) -> None:
        """Returns when the GCS has taken the order. Idempotent. Raises: NotFound."""
        self._gcs.call("Actor", "KillActor", gcs_pb2.KillActorRequest(actor_id=actor_id, no_restart=no_restart))

    def begin_kill(self, actor_id: bytes, done: Done) -> None:
        """For good."""
        request = gcs_pb2.KillActorRequest(actor_id=actor_id, no_restart=True)
        self._gcs.call_async("Actor", "KillActor", request, lambda _, error: done(error))

    def note_checkpoint(self, actor_id: bytes, incarnation: int) -> None:
        """An actor that does not keep checkpoints by itself is about to store its first. Idempotent.

        Raises: NotFound (it is dead), PreconditionFailed (another incarnation has replaced this one).
        """
        self._gcs.call(
            "Actor", "NoteCheckpoint", gcs_pb2.NoteCheckpointRequest(actor_id=actor_id, incarnation=incarnation)
        )

    def begin_release(self, actor_id: bytes, done: Done) -> None:
        """The last handle is gone."""
        request = gcs_pb2.ReleaseActorRequest(actor_id=actor_id)
        self._gcs.call_async("Actor", "ReleaseActor", request, lambda _, error: done(error))


def _creation(spec: ActorSpec) -> gcs_pb2.CreateActorRequest:
    return gcs_pb2.CreateActorRequest(
        spec=gcs_pb2.ActorSpec(
            actor_id=spec.actor_id,
            job_id=spec.job_id,
            owner_id=spec.owner_id,
            owner_node_id=spec.owner_node_id,
            name=spec.name,
            namespace=spec.namespace,
            detached=spec.detached,
            max_restarts=spec.max_restarts,
            class_name=spec.class_name,
            placement=amounts(spec.placement),
            held=amounts(spec.held),
            strategy=spec.strategy,
            runtime_env=spec.runtime_env,
            creation=spec.creation,
            handle=spec.handle,
            enforce_memory=spec.enforce_memory,
            checkpoints=spec.checkpoints,
            of_named_job=spec.of_named_job,
        )
    )


def _record(info: gcs_pb2.ActorInfo) -> ActorRecord:
    return ActorRecord(
        actor_id=info.actor_id,
        state=ActorState(info.state),
        version=info.version,
        incarnation=info.incarnation,
        address=worker_address(info.address),
        pid=info.pid,
        name=info.name,
        namespace=info.namespace,
        class_name=info.class_name,
        creation_error=info.creation_error,
        death_reason=info.death_reason,
        exit_kind=exit_kind(info.exit),
        exit_detail=info.exit.detail,
        killed=info.killed,
        unschedulable=info.unschedulable,
        runtime_env_failed=info.runtime_env_failed,
        group_removed=info.group_removed,
        waits_for_quota=info.waits_for_quota,
    )
