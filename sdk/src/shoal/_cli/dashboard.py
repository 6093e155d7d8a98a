"""``shoal dashboard``: where a cluster's dashboard is, or one that runs as long as the command."""

from __future__ import annotations

import shutil
import signal
from typing import Any

import click

from shoal._cli import parameters
from shoal._launch.dashboards import Dashboard, announced
from shoal._launch.directories import new_dashboard_directory
from shoal._net.dashboard import DashboardClient
from shoal._net.gcs.client import visiting
from shoal._session.address import gcs_meant, token_file_for, token_for
from shoal_common.auth import DEFAULT_TOKEN_PATH


@click.command(help="Show where the cluster's dashboard is; where there is none, run it here until it is interrupted.")
@parameters.address_option
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=parameters.port, help="Port to listen on; default: 8265, or the next that is free.")
def dashboard(address: str | None, host: str, port: int | None) -> int:
    where = gcs_meant(address)
    token = token_for(where)
    with visiting(where, token) as gcs:
        url, known = announced(gcs)
        # One that was killed stays announced for a while.
        if url and DashboardClient(url, "", verify=False).answers():
            _tell(url, where)
            return 0
        directory = new_dashboard_directory()
        process = Dashboard(where, token, host, port, directory, log=None)
        try:
            signal.signal(signal.SIGTERM, _leave)
            _tell(process.await_url(gcs, known), where)
            print("It runs until this is interrupted.", flush=True)
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            process.stop()
            shutil.rmtree(directory, ignore_errors=True)


def _tell(url: str, gcs_address: str) -> None:
    print(f"The dashboard is at {url}")
    if (file := token_file_for(gcs_address)) is not None:
        print(f"Log in with the cluster's token: that in {file}.")
    else:
        print(
            f"Log in with the cluster's token: that of its head, in ~/{DEFAULT_TOKEN_PATH} unless it was given another."
        )


def _leave(_signum: int, _frame: Any) -> None:
    raise KeyboardInterrupt
