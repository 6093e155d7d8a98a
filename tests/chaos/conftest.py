from support.sessions import cluster, no_cluster

__all__ = ["cluster", "no_cluster"]
