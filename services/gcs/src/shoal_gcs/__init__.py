"""The global control service: nodes, jobs, actors and the function table. All of it lies in the metadata store."""
