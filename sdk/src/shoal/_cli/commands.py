"""All commands, each imported when it is used, and how their failures are told."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path
from typing import Any

import click

from shoal import _version
from shoal.exceptions import AuthenticationError
from shoal.util.state.exception import RayStateApiException
from shoal_common.auth import TokenError
from shoal_common.errors import ServiceError
from shoal_common.tls import TlsError

#: Command -> the module of this package that has it, and its name there.
_PLACES = {
    "start": ("starting", "start"),
    "stop": ("starting", "stop"),
    "status": ("cluster", "status"),
    "health-check": ("cluster", "health_check"),
    "drain": ("cluster", "drain"),
    "list": ("state", "list_command"),
    "get": ("state", "get"),
    "summary": ("state", "summary"),
    "memory": ("state", "memory"),
    "timeline": ("state", "timeline"),
    "events": ("events", "events"),
    "logs": ("logs", "logs"),
    "explain": ("waits", "explain"),
    "debug": ("debugging", "debug"),
    "dashboard": ("dashboard", "dashboard"),
    "top": ("top", "top"),
    "stack": ("stack", "stack"),
    "job": ("jobs", "job"),
    "microbenchmark": ("benchmark", "microbenchmark"),
}
#: What a command may end with: its text is for the user.
_FAILURES = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    TokenError,
    TlsError,
    AuthenticationError,
    RayStateApiException,
    ServiceError,
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module, name = _PLACES[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"shoal._cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        def fail(problem: object, code: int) -> int:
            print(f"{ctx.command_path} {ctx.invoked_subcommand}: {problem}", file=sys.stderr)
            return code

        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own, though they are of the kinds below
        except KeyboardInterrupt:
            return fail("interrupted", 128 + signal.SIGINT)
        except _FAILURES as error:
            return fail((isinstance(error, OSError) and not error.filename and error.strerror) or error, 1)


def run(arguments: list[str] | None) -> int:
    """The exit code: 2 where the arguments are wrong, which is said below how they are given."""
    # The images have the name of Ray's program, too.
    program = "ray" if Path(sys.argv[0]).name == "ray" else "shoal"
    group = _Commands(program, help="Start, look at and stop a cluster of this and other machines.")
    group = click.version_option(_version.__version__, prog_name="shoal", message="%(prog)s %(version)s")(group)
    try:
        return group.main(arguments, prog_name=program, standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        where = program
        if error.ctx is not None:
            where = error.ctx.command_path
            print(error.ctx.get_usage(), f"Try '{where} --help'.\n", sep="\n", file=sys.stderr)
        print(f"{where}: {_told(error)}", file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        print(f"{program}: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except click.Abort:
        print(f"{program}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _told(error: click.UsageError) -> str:
    """As in "--port: '0' is not a port", in place of click's longer words."""
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter) and error.param:
        return f"{max(error.param.opts, key=len)}: {error.message}"
    return error.format_message()
