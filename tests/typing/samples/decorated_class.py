"""``@shoal.remote`` on a class, which pyright follows and mypy does not."""

from __future__ import annotations

from typing import assert_type

import shoal


@shoal.remote(num_cpus=0)
class Greeter:
    @shoal.method
    def greet(self, name: str) -> str:
        return f"hello {name}"


greeter = Greeter.remote()
assert_type(shoal.get(greeter.greet.remote("you")), str)
greeter.greet.remote(1)  # refused
