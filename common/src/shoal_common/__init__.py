"""What every process of Shoal shares."""

import os

# Read by grpc's core when it is first imported, and by nothing else. Its default prints a line into the user's terminal
# for every connection that a stopping service closes.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
