"""``python -m shoal_dashboard.healthcheck PORT``: exit 0 when the dashboard on this machine answers.

A container runtime runs it in the container, every few seconds. The connection does not leave the machine, and the
certificate names whom browsers ask for: it is not checked.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

DEADLINE_S = 5.0


def check(port: int, https: bool) -> str:
    """Why it is not healthy, or ""."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=DEADLINE_S, context=_unchecked())
        if https
        else http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    )
    try:
        connection.request("GET", "/api/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"the dashboard does not answer: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"the dashboard answers with status {status}"


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


if __name__ == "__main__":
    secured = any(os.environ.get(name) for name in ("SHOAL_TLS_CERT", "SHOAL_DASHBOARD_HTTPS_CERT"))
    problem = check(int(sys.argv[1]), secured)
    if problem:
        print(problem, file=sys.stderr)
    sys.exit(1 if problem else 0)
