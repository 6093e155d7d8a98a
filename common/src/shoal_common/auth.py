"""The cluster token: where a process gets it from."""

from __future__ import annotations

import secrets
import stat
from collections.abc import MutableMapping
from pathlib import Path

TOKEN_VARIABLE = "SHOAL_AUTH_TOKEN"
TOKEN_PATH_VARIABLE = "SHOAL_AUTH_TOKEN_PATH"
DEFAULT_TOKEN_PATH = Path(".shoal", "auth_token")
#: Metadata of every gRPC call: ``authorization: Bearer <token>``.
METADATA_KEY = "authorization"
SCHEME = "Bearer "


class TokenError(Exception):
    """There is no token, or its file cannot be used. The message never contains the token."""


def new_token() -> str:
    """A fresh random token of 256 bits."""
    return secrets.token_hex(32)


def load_token(environ: MutableMapping[str, str]) -> str:
    """The cluster token of this process.

    From ``SHOAL_AUTH_TOKEN``, else from the file ``SHOAL_AUTH_TOKEN_PATH``, else from ``~/.shoal/auth_token``. The
    first variable is taken out of ``environ``, so that no child process inherits the token.

    Raises: TokenError when there is none, or when others may read the file in the home directory. A file that was
    named explicitly may be readable by others: secrets are mounted so in containers.
    """
    token = environ.pop(TOKEN_VARIABLE, "").strip()
    if token:
        return _checked(token, TOKEN_VARIABLE)
    named = environ.get(TOKEN_PATH_VARIABLE)
    path = Path(named) if named else Path(environ.get("HOME", "/nonexistent")) / DEFAULT_TOKEN_PATH
    try:
        mode = path.stat().st_mode
        token = path.read_text(errors="replace").strip()
    except OSError as error:
        raise TokenError(
            f"no cluster token: {path} cannot be read ({error.strerror}). Write the token of the cluster's head "
            f"into it, or name its file in {TOKEN_PATH_VARIABLE}"
        ) from error
    if not named and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokenError(f"the token file {path} is open to others: run chmod 600 {path}")
    if not token:
        raise TokenError(f"the token file {path} is empty: write the token of the cluster's head into it")
    return _checked(token, str(path))


def _checked(token: str, source: str) -> str:
    """A token travels in an HTTP header, which takes nothing but printable ASCII."""
    if not (token.isascii() and token.isprintable()):
        raise TokenError(
            f"the token in {source} has characters other than printable ASCII: it was not written by Shoal"
        )
    return token
