"""A driver outside of the cluster brings its files to all nodes."""

from __future__ import annotations

from pathlib import Path

from support.outside import Outside

PROGRAM = """
import shoal

shoal.init(runtime_env={{"working_dir": {directory!r}}}, logging_level="ERROR")

@shoal.remote
def look():
    import brought_helper
    return brought_helper.NAME, shoal.get_runtime_context().get_node_id()

found = shoal.get([look.options(resources={{name: 1}}).remote() for name in ("first", "second")])
print([name for name, _ in found], len({{node for _, node in found}}))
shoal.shutdown()
"""


def test_its_files_are_on_both_nodes(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "brought_helper.py").write_text("NAME = 'brought'")
    output = outside.run(PROGRAM.format(directory=str(tmp_path)))
    assert output.splitlines()[-1] == "['brought', 'brought'] 2"
