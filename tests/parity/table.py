"""How Shoal stands to each part of Ray's public API, as data; `docs/api-parity.md` is written out of it."""

from __future__ import annotations

from parity.actors import ACTORS
from parity.clusters import CONTEXT, GROUPS, NODES
from parity.environments import ENVIRONMENTS
from parity.errors import ERRORS
from parity.objects import OBJECTS
from parity.row import Section
from parity.sessions import SESSIONS
from parity.tasks import TASKS
from parity.utilities import UTILITIES

TABLE: tuple[Section, ...] = (
    SESSIONS,
    TASKS,
    ACTORS,
    OBJECTS,
    ERRORS,
    CONTEXT,
    GROUPS,
    NODES,
    ENVIRONMENTS,
    UTILITIES,
)
