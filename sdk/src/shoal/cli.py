"""The command ``shoal``: start, look at and stop a cluster. ``_cli`` has a module for each group of its commands."""

from __future__ import annotations

import sys

from shoal_common.surroundings import occupy_standard_streams


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code; says what went wrong in one line."""
    occupy_standard_streams()
    try:
        from shoal._cli.commands import run

        return run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(f"shoal: the command needs {error.name}: pip install 'shoal[cli]'", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
