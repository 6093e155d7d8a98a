"""A driver outside of its cluster: ``init("shoal://host:port")``, or several gateways with commas between."""

from __future__ import annotations

import logging
import os
import shutil
import urllib.parse

from shoal import exceptions
from shoal._launch.cluster_address import ClusterAddress
from shoal._launch.directories import new_session_directory
from shoal._net.gateway_client import GatewayClient
from shoal._owner.core_worker import CoreWorker
from shoal._session.address import GATEWAY_SCHEME
from shoal._values import local_modules as _local_modules
from shoal_common.channel.gateway_handshake import DEFAULT_PORT, SessionOpened
from shoal_common.channel.handshake import HandshakeError, WrongTokenError
from shoal_common.tls import Tls, advice

logger = logging.getLogger("shoal")


class OutsideDriver:
    """Its session with a gateway, and the files it has on this machine."""

    def __init__(self, address: str, token: str, worker_id: bytes, temp_dir: str | None) -> None:
        """Raises: ValueError (malformed address), ConnectionError (nobody there), AuthenticationError (wrong token),
        TlsError."""
        gateways = parse_address(address)
        if not token:
            raise exceptions.AuthenticationError(f"There is no token for {address}.")
        self._core: CoreWorker | None = None
        #: Why the session is over.
        self._error: exceptions.GatewayLostError | None = None
        self._directory = new_session_directory(temp_dir)
        try:
            opened = self._connect(gateways, token, worker_id)
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        self.opened = opened
        self.cluster = ClusterAddress(self.client.gcs_address, "", opened.node_id.hex(), opened.session_dir, token)
        _local_modules.send_by_value()

    def _connect(self, gateways: list[tuple[str, int]], token: str, worker_id: bytes) -> SessionOpened:
        """To the first of them that will have this driver. Raises: as the constructor, if there is none."""
        tls = Tls.from_environ(os.environ)
        problems: list[str] = []
        for host, port in gateways:
            #: Of the gateway that has the session.
            self.address = f"{GATEWAY_SCHEME}{host if ':' not in host else f'[{host}]'}:{port}"
            self.client = GatewayClient(
                host,
                port,
                token=token,
                tls=tls,
                worker_id=worker_id,
                directory=self._directory,
                on_end=self._ended,
                others=[other for other in gateways if other != (host, port)],
            )
            try:
                return self.client.connect()
            except WrongTokenError as error:
                raise exceptions.AuthenticationError(f"The gateway at {self.address}: {error}.") from None
            except HandshakeError as error:
                problems.append(f"The gateway at {self.address}: {error}")
            except OSError as error:
                problems.append(
                    f"Shoal could not connect to a gateway at {self.address}: {error}. Check that a raylet with a "
                    f"gateway_port runs there, and that the port is published. {advice(tls)}"
                )
        raise ConnectionError("\n".join(problems))

    def serves(self, core: CoreWorker) -> None:
        """This is the driver whose connections it carries."""
        self._core = core
        if self._error is not None:  # it was over before the driver was there
            core.node_error = self._error

    def close(self) -> None:
        """End the session, after the driver. Idempotent."""
        _local_modules.stop()
        self.client.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ended(self, reason: str) -> None:
        logger.error("The session with %s is over: %s", self.address, reason)
        job = self._core.job_name if self._core is not None else ""
        self._error = exceptions.GatewayLostError(self.address, reason, job)
        if self._core is not None:
            self._core.node_error = self._error


def parse_address(address: str) -> list[tuple[str, int]]:
    """``shoal://host[:port],host[:port]…`` → host and port of each. Raises: ValueError."""
    return [_host_and_port(each, address) for each in address.removeprefix(GATEWAY_SCHEME).split(",")]


def _host_and_port(gateway: str, address: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(GATEWAY_SCHEME + gateway)
    try:
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        port = 0
    if not (parts.hostname and port) or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise ValueError(
            f"Malformed address: {address}. Expected shoal://host or shoal://host:port, or shoal://host:port,host:port "
            "of several gateways."
        )
    return parts.hostname, port
