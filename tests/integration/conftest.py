from support.outside import impatient, outside
from support.sessions import cluster, no_cluster

__all__ = ["cluster", "impatient", "no_cluster", "outside"]
