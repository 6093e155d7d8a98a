"""Writes docs/configuration.md out of the config classes, docs/failure-model.md out of the crash matrix,
docs/api-parity.md out of the table of Ray's API in tests/parity, and docs/modules.md out of the modules' docstrings.

``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shoal._session.arguments import SYSTEM_SETTINGS
from shoal_autoscaler.config import AutoscalerConfig
from shoal_common.service.config import ServiceConfig
from shoal_dashboard.config import DashboardConfig
from shoal_gcs.config import GcsConfig
from shoal_objectstore.config import ObjectStoreConfig
from shoal_raylet.config import RayletConfig
from shoal_scheduler.config import SchedulerConfig

DOCS = Path(__file__).parent
sys.path += [str(DOCS), str(DOCS.parent / "tests")]

# They lie beside, and read what lies with the tests.
import failure_page  # noqa: E402
import modules_page  # noqa: E402
import parity_page  # noqa: E402

SERVICES: tuple[type[ServiceConfig], ...] = (
    GcsConfig,
    SchedulerConfig,
    ObjectStoreConfig,
    RayletConfig,
    DashboardConfig,
    AutoscalerConfig,
)

HEAD = """# Configuration

<!-- Written by docs/generate.py out of the config classes (`make docs`); changes belong there. -->

A setting of a service is a flag (`--silence-s 5`) or an environment variable (`SHOAL_GCS_SILENCE_S=5`); the flag wins.
`python -m shoal_gcs --help` prints the same. Lists are separated by commas, dictionaries are JSON. An unknown variable
is warned about, a value out of range ends the service with exit code 2 and the accepted range.

The cluster token is no setting: it is read from the file that `SHOAL_AUTH_TOKEN_PATH` names, else from
`~/.shoal/auth_token`, or taken from `SHOAL_AUTH_TOKEN`, which is removed from the environment at once. Neither is the
identity for mutual TLS: `SHOAL_TLS_CA`, `SHOAL_TLS_CERT` and `SHOAL_TLS_KEY` name PEM files (`make certs` makes trial
ones), the same for services, drivers and health checks; without them the cluster speaks without TLS.
"""

FILES = """Its files, and those of `shoal start`, are in `shoal-<uid>` below `SHOAL_TMPDIR`, else `TMPDIR`, else `/tmp`;
`init(_temp_dir="/...")` names another place for those of its own cluster. The path is absolute and has at most 40
bytes, as those of Unix sockets are short.
"""


def main() -> int:
    outdated = []
    pages = {
        "configuration.md": configuration(),
        "failure-model.md": failure_page.page(),
        "modules.md": modules_page.page(),
        "api-parity.md": parity_page.page(),
    }
    for name, text in pages.items():
        page = DOCS / name
        if "--check" not in sys.argv[1:]:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            outdated.append(name)
    if outdated:
        print(f"{', '.join(outdated)}: not what the code says, run make docs", file=sys.stderr)
    return len(outdated)


def configuration() -> str:
    shared = {field.name for field in _settings(ServiceConfig)}
    parts = [
        HEAD,
        "## Every service\n",
        "`<SERVICE>` is `GCS`, `SCHEDULER`, `OBJECTSTORE`, `RAYLET` or `DASHBOARD`. Their default ports differ.\n",
        _table(_settings(ServiceConfig), "SHOAL_<SERVICE>_"),
    ]
    for config in SERVICES:
        own = [field for field in _settings(config) if field.name not in shared or field.name == "port"]
        parts += [
            f"## {config.SERVICE}\n",
            f"{(config.__doc__ or '').strip()} `python -m shoal_{config.SERVICE}`\n",
            _table(own, f"SHOAL_{config.SERVICE.upper()}_"),
        ]
    parts += [
        "## An embedded cluster\n",
        "`init(_system_config={...})`, or the environment of the driver.\n",
        _embedded(),
        FILES,
    ]
    return "\n".join(parts)


def _settings(config: type[ServiceConfig]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(config) if "doc" in field.metadata]


def _table(fields: Iterable[dataclasses.Field[Any]], prefix: str) -> str:
    lines = ["| variable | default | |", "|---|---|---|"]
    for field in fields:
        about = field.metadata
        unit = f", in {about['unit']}" if about["unit"] else ""
        lines.append(f"| `{prefix}{field.name.upper()}` | {_default(field)} | {about['doc']}{unit} |")
    return "\n".join(lines) + "\n"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value: Any = field.default_factory()
    else:
        value = field.default
    if value is dataclasses.MISSING:
        return "*required*"
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`" if value not in (None, "", {}) else ""


def _embedded() -> str:
    lines = ["| `_system_config` | variable | default | from | to |", "|---|---|---|---|---|"]
    for name, (default, least, most) in SYSTEM_SETTINGS.items():
        lines.append(f"| `{name}` | `SHOAL_{name.upper()}` | `{_number(default)}` | {least:g} | {most:g} |")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
