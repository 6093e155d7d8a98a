"""The command's arguments and how failures are told; what commands do is in tests/integration/test_cli.py."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from shoal import cli
from shoal._cli import commands
from shoal._launch import local_nodes
from shoal._launch.cluster_address import ClusterAddress
from shoal._launch.daemons import Daemon

COMMANDS = list(commands._PLACES)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    usage, text, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"Usage: shoal {command}")
    assert text.strip()


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in listed] == []


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["start", "--port=0"], "shoal start: --port: '0' is not a port, 1 to 65535"),
        (["start", "--labels=a"], "shoal start: --labels: 'a' is not of the form key=value,key=value"),
        (["start", "--resources=1"], "shoal start: --resources: '1' is not a JSON object"),
        (["status", "--address=x"], "shoal status: --address: 'x' is not host:port of a GCS"),
        (["explain"], "shoal explain: Missing argument 'ID'."),
        (["explain", "ab12"], "shoal explain: id: 'ab12' is not the id of an object, task, actor or placement group"),
        (["status", "--adress=x"], "shoal status: No such option '--adress'. Did you mean '--address'?"),
        (["sttus"], "shoal: No such command 'sttus'."),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Usage: shoal")
    assert lines[-1] == said


@pytest.mark.parametrize(
    "error, code, said",
    [
        (RuntimeError("no disk"), 1, "no disk"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("shoal._cli.cluster.status", click.Command("status", callback=fail))
    assert cli.main(["status"]) == code
    assert capsys.readouterr().err == f"shoal status: {said}\n"


def test_without_click_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delitem(sys.modules, "shoal._cli.commands")
    assert cli.main(["status"]) == 1
    assert "pip install 'shoal[cli]'" in capsys.readouterr().err


def test_the_program_has_the_name_it_is_called_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/shoal/bin/ray"])
    assert cli.main(["status", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ray status")


def test_a_shell_completes_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_SHOAL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "shoal he")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        cli.main([])
    assert capsys.readouterr().out == "plain,health-check\n"


def test_programs_and_workers_import_neither_click_nor_rich() -> None:
    program = "import sys, shoal, shoal.cli, shoal.worker; print([n for n in ('click', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ([], "a head runs here already, at h:1: run `shoal stop` first"),
        (["gcs"], "a head runs here already, at h:1, but its gcs has ended: run `shoal stop`, then start it again"),
    ],
)
def test_a_head_that_has_lost_a_part_is_not_said_to_run(
    ended: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemons = tuple(Daemon(name, 1, 0) for name in ("gcs", "raylet"))
    monkeypatch.setattr(Daemon, "alive", lambda daemon: daemon.service not in ended)
    node = local_nodes.LocalNode(ClusterAddress("h:1", "", "", "", ""), head=True, daemons=daemons)
    monkeypatch.setattr(local_nodes, "recorded_nodes", lambda: [node])
    assert cli.main(["start", "--head"]) == 1
    assert said in capsys.readouterr().err
