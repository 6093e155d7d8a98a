"""The raylet: one on each node. It leases worker processes and holds the node's objects.

Imports nothing itself: the embedded head starts the worker template out of this package before it loads gRPC.
"""
