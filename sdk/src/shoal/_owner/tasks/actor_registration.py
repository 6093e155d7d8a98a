"""Actors made by this process, until the GCS knows them: it is told when the constructor's arguments are there."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal import exceptions
from shoal._core.actors import ActorClient
from shoal._core.task_record import References
from shoal._net.gcs.errors import AlreadyExists
from shoal._net.gcs.records import ActorSpec
from shoal._owner.objects.waiting import Waiting
from shoal._owner.tasks.arguments import PackedArguments, await_arguments, resolve_arguments
from shoal._values.task_error import error_of_dependent
from shoal._wire.peer_frames import Argument

if TYPE_CHECKING:
    from shoal._owner.process import Process


class ActorRegistration:
    """Of one process. Methods take its lock."""

    def __init__(self, process: Process, waiting: Waiting) -> None:
        self._process = process
        self._waiting = waiting

    def create(
        self,
        client: ActorClient,
        packed: PackedArguments | None,
        complete: Callable[[list[Argument] | None], ActorSpec],
    ) -> None:
        """Register an actor as soon as the references among its arguments are ready; does not wait for either.
        ``complete`` puts their values into the specification."""

        def register() -> None:
            resolved = self._resolved(client, packed)
            if isinstance(resolved, Exception):
                client.on_dead(client.version, resolved)
            else:
                self._process.gcs.actors.begin_create(complete(resolved), created)

        def created(error: Exception | None) -> None:
            with self._process.lock:
                if self._process.closed:
                    return
                if error is not None:
                    client.on_dead(client.version, _not_created(client, error))
                else:
                    client.on_registered()

        references: References = (packed.references if packed is not None else None) or []
        with self._process.lock:
            client.create(packed)
            if await_arguments(self._waiting, references, register):
                register()

    def _resolved(self, client: ActorClient, packed: PackedArguments | None) -> list[Argument] | Exception | None:
        """The constructor's arguments; the actor's death when one is an error."""
        if packed is None or packed.references is None:
            return None
        resolved = resolve_arguments(self._process, packed.references)
        if isinstance(resolved, list):
            return resolved
        cause = pickle.loads(error_of_dependent("__init__", resolved.payload))
        if isinstance(cause, exceptions.TaskError):
            return exceptions.ActorDiedError(cause, actor_id=client.actor_id.hex())
        return exceptions.ActorDiedError(
            actor_id=client.actor_id.hex(), reason=f"A constructor argument failed: {cause}"
        )

    def create_named(
        self,
        client: ActorClient,
        packed: PackedArguments | None,
        complete: Callable[[list[Argument] | None], ActorSpec],
    ) -> None:
        """As ``create``, but waits until it is done: whether the name is free must be known, and so must the arguments.

        Raises: ActorAlreadyExistsError, ActorDiedError (an argument is an error), ShoalSystemError.
        """
        refs = [ref for _, _, ref in (packed.references if packed is not None else None) or ()]
        if refs:
            self._waiting.wait(refs, len(refs), None)
        with self._process.lock:
            client.create(packed)
            resolved = self._resolved(client, packed)
            if isinstance(resolved, Exception):
                client.on_dead(client.version, resolved)
                raise resolved
        spec = complete(resolved)
        try:
            self._process.gcs.actors.create(spec)
        except exceptions.RpcError as error:
            with self._process.lock:
                client.on_dead(client.version, _not_created(client, error))
            if isinstance(error, AlreadyExists):
                raise exceptions.ActorAlreadyExistsError(
                    f"The name {spec.name} (namespace={spec.namespace}) is already taken. Please use a different name, "
                    f"or get the existing actor using shoal.get_actor('{spec.name}')."
                ) from None
            raise exceptions.ShoalSystemError(f"The GCS did not create actor {spec.name}: {error.message}") from error
        with self._process.lock:
            client.on_registered()


def _not_created(client: ActorClient, error: Exception) -> Exception:
    detail = error.message if isinstance(error, exceptions.RpcError) else str(error)
    return exceptions.ActorDiedError(actor_id=client.actor_id.hex(), reason=f"It was not created: {detail}")
