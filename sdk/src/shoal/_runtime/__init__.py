"""The I/O around ``shoal._core``: the reactor, connections, the store, the executor of a worker."""
