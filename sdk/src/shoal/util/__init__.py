"""Helpers on top of the core API, as Ray's ``ray.util``."""
