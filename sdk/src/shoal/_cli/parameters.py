"""Kinds of arguments that several commands take, and the cluster that they are about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from shoal._net.gcs.client import visiting
from shoal._session.address import ADDRESS_VARIABLE, gcs_meant, token_for
from shoal_common import ids
from shoal_common.channel.tcp import MAX_PORT

if TYPE_CHECKING:
    from shoal._net.gcs.client import GcsClient


# Each reads what was typed: click names the argument in front of what it says.


def port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= MAX_PORT):
        raise click.BadParameter(f"{text!r} is not a port, 1 to {MAX_PORT}")
    return int(text)


def address(text: str) -> str:
    for part in text.split(","):
        host, _, number = part.rpartition(":")
        if not host or "/" in host:
            raise click.BadParameter(f"{part!r} is not host:port of a GCS")
        port(number)
    return text


def thing_id(text: str) -> bytes:
    """Of an object, task, actor or placement group. The lengths tell them apart, but for the last two."""
    try:
        value = bytes.fromhex(re.sub(r"^(ObjectRef|PlacementGroup)\(|\)$", "", text.strip()))
    except ValueError:
        value = b""
    if len(value) not in (ids.ACTOR_LENGTH, ids.TASK_LENGTH, ids.OBJECT_LENGTH):
        raise click.BadParameter(f"{text!r} is not the id of an object, task, actor or placement group")
    return value


def json_object(text: str) -> dict[str, float]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object")
    return value


def labels(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(equals for _key, equals, _value in pairs):
        raise click.BadParameter(f"{text!r} is not of the form key=value,key=value")
    return {key.strip(): value.strip() for key, _equals, value in pairs}


address_option = click.option(
    "--address", type=address, help=f"host:port of the GCS; default: {ADDRESS_VARIABLE}, else what runs here."
)


@contextmanager
def asking(given: str | None) -> Iterator[GcsClient]:
    """The GCS of the cluster that is meant. Raises: as ``gcs_meant`` and ``visiting``."""
    where = gcs_meant(given)
    with visiting(where, token_for(where)) as gcs:
        yield gcs
