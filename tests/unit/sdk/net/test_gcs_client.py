from __future__ import annotations

import socket
from typing import Any

import pytest

from shoal._net.gcs.client import _may_be_several


@pytest.mark.parametrize(
    ("address", "found", "several"),
    [
        ("10.0.0.1:6381,10.0.0.2:6381", (), True),
        ("gcs:6381", ("172.19.0.8",), True),
        ("gcs:6381", ("172.19.0.8", "172.19.0.9"), True),
        ("localhost:6381", ("::1", "127.0.0.1"), False),
        ("127.0.0.1:6381", ("127.0.0.1",), False),
        ("10.0.0.1:6381", ("10.0.0.1",), False),
        ("[fd00::1]:6381", ("fd00::1",), False),
        ("misspelt:6381", (), False),
    ],
)
def test_behind_a_name_may_be_several(
    address: str, found: tuple[str, ...], several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(host: str, port: None, **_: Any) -> list[Any]:
        if not found:
            raise socket.gaierror("Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, 0)) for number in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert _may_be_several(address) is several
