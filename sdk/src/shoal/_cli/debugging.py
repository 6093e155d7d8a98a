"""Breakpoints in tasks and actors, and a terminal at one of them."""

from __future__ import annotations

import click

from shoal import _current
from shoal._cli.parameters import address_option
from shoal._session import debug_terminal, session
from shoal._session.address import gcs_meant
from shoal.job_config import JobConfig


@click.command(
    help="Talk to the debugger of code that waits at a breakpoint: that whose id begins with ID. Without ID it is the "
    "only one there is, else all are listed."
)
@click.argument("id", default="")
@click.option("--list", "only_list", is_flag=True, help="Say only which there are.")
@address_option
def debug(id: str, only_list: bool, address: str | None) -> None:
    # It needs connections as a driver has them, and so is a job; lists of jobs tell what for.
    tool = JobConfig(metadata={"tool": "shoal debug"})
    with session.init(address=gcs_meant(address), log_to_driver=False, logging_level="ERROR", job_config=tool):
        debugging = _current.connected().debugging
        found = debugging.breakpoints()
        at = None if only_list else debug_terminal.chosen(found, id)
        print(debug_terminal.listed([at] if at is not None else found), flush=True)
        if at is not None:
            debug_terminal.talk(debugging, at)
