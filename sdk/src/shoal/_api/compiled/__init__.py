"""Compiled graphs: a graph of actors' methods whose values go through shared memory instead of calls.

``compiler`` makes one; ``planning`` decides what runs where and what is refused, ``plan`` is what comes of that;
``ring`` is the memory between two processes, ``handover`` how the actors get at it; ``loop`` runs in each actor,
``compiled_dag`` and ``refs`` are what the driver holds.
"""
