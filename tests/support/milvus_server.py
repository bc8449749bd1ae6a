"""A Milvus server on loopback: `milvus-lite server`, or the one that `TIMM_DPA_TEST_MILVUS` names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class MilvusServer:
    """Start with `with`; `kill` and `start` are a crash and what follows it.

    Args:
        folder: of its data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}'

    def __enter__(self) -> MilvusServer:
        self.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.kill()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name('milvus-lite')),
                *('server', '--data-dir', str(self.folder), '--host', '127.0.0.1', '--port', str(self.port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(240):
            with socket.socket() as probe:
                if not probe.connect_ex(('127.0.0.1', self.port)):
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.25)
        raise RuntimeError('milvus-lite server does not start')

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def given_server() -> str | None:
    """Address of a server to use instead, such as a real Milvus."""
    return os.environ.get('TIMM_DPA_TEST_MILVUS')
