"""What the state API raises. The names are Ray's."""

from __future__ import annotations


class RayStateApiException(Exception):
    """The dashboard refused a question, or could not answer it; the message says why."""


class ServerUnavailable(RayStateApiException, ConnectionError):
    """No dashboard is known, or it does not answer."""
