"""What the owner of objects and tasks decides, without I/O.

Nothing in this package reads a clock, a socket or an environment variable: events and the time come in as
arguments, and what is to be done goes out through a small port. So it is tested in virtual time.
"""
