"""The cluster token: where a process gets it from."""

from __future__ import annotations

import secrets
import stat
from collections.abc import Mapping, MutableMapping
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


def token_of_environment(environ: Mapping[str, str]) -> str:
    """``SHOAL_AUTH_TOKEN``; "" = it is not set. Raises: TokenError when it cannot be a token."""
    token = environ.get(TOKEN_VARIABLE, "").strip()
    return _checked(token, TOKEN_VARIABLE) if token else ""


def token_path(environ: Mapping[str, str]) -> Path:
    """The file that ``SHOAL_AUTH_TOKEN_PATH`` names, else ``~/.shoal/auth_token``."""
    named = environ.get(TOKEN_PATH_VARIABLE)
    return Path(named) if named else Path(environ.get("HOME", "/nonexistent")) / DEFAULT_TOKEN_PATH


def find_token(environ: Mapping[str, str]) -> str:
    """The cluster token of this process, from ``SHOAL_AUTH_TOKEN``, else from the file of `token_path`; "" = there is
    none.

    Raises: TokenError when the file that is named cannot be read, when others may read the one in the home directory,
    or when it has no token. A file that was named explicitly may be readable by others: secrets are mounted so in
    containers.
    """
    if token := token_of_environment(environ):
        return token
    named, path = bool(environ.get(TOKEN_PATH_VARIABLE)), token_path(environ)
    try:
        mode = path.stat().st_mode
        token = path.read_text(errors="replace").strip()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not named:
            return ""
        raise _no_token(path, error.strerror) from error
    if not named and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TokenError(f"the token file {path} is open to others: run chmod 600 {path}")
    if not token:
        raise TokenError(f"the token file {path} is empty: write the token of the cluster's head into it")
    return _checked(token, str(path))


def load_token(environ: MutableMapping[str, str]) -> str:
    """For a process that cannot do without: as `find_token`, and takes the variable out of ``environ``, so that no
    child process inherits the token.

    Raises: TokenError when there is none, or as `find_token`.
    """
    token = find_token(environ)
    environ.pop(TOKEN_VARIABLE, None)
    if not token:
        raise _no_token(token_path(environ), "No such file or directory")
    return token


def _no_token(path: Path, reason: str | None) -> TokenError:
    return TokenError(
        f"no cluster token: {path} cannot be read ({reason}). Write the token of the cluster's head into it, or name "
        f"its file in {TOKEN_PATH_VARIABLE}"
    )


def _checked(token: str, source: str) -> str:
    """A token travels in an HTTP header, which takes nothing but printable ASCII."""
    if not (token.isascii() and token.isprintable()):
        raise TokenError(
            f"the token in {source} has characters other than printable ASCII: it was not written by Shoal"
        )
    return token
