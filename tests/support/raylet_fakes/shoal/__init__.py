"""Stands in for the SDK in the raylet's tests: a worker that does what the test tells it."""
