"""Where a cluster's dashboard is: it says so in the small map of the cluster (KvService), again and again, so that
every process of the cluster finds it, and nobody one that is gone."""

from __future__ import annotations

NAMESPACE = "shoal.dashboard"
#: Its value: the URL, as UTF-8.
KEY = "url"
#: The entry goes so long after it was last written, in seconds.
TTL_S = 30.0
#: The port that it takes unless it is told otherwise, and how many above it are tried when that is taken.
PORT = 8265
PORTS_TRIED = 50
