from __future__ import annotations

import subprocess
import sys

#: A session needs them, `import shoal` does not.
HEAVY = ("asyncio", "google.protobuf", "grpc", "numpy", "shoal._executor", "shoal._owner.core_worker", "ssl")
#: Only runtime environments and notebooks need them; a worker that has them is larger.
HEAVY += ("html", "importlib.metadata", "tempfile", "zipfile")


def test_import_shoal_is_cheap() -> None:
    program = f"import sys, shoal; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
