"""Ports of servers on loopback."""

from __future__ import annotations

import socket
import subprocess
import time


def free_port() -> int:
    with socket.create_server(('127.0.0.1', 0)) as free:
        return int(free.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the server of `process` listens; RuntimeError if it ends, or after a minute."""
    for _ in range(240):
        with socket.socket() as probe:
            if not probe.connect_ex(('127.0.0.1', port)):
                return
        if process.poll() is not None:
            break
        time.sleep(0.25)
    raise RuntimeError(f'{process.args} does not start')
