"""A Milvus server on loopback: `milvus-lite server`, or the one that `TIMM_DPA_TEST_MILVUS` names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.ports import free_port, wait_for_port


class MilvusServer:
    """Start with `with`; `kill` and `start` are a crash and what follows it.

    Args:
        folder: of its data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
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
        wait_for_port(self.port, self.process)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def given_server() -> str | None:
    """Address of a server to use instead, such as a real Milvus."""
    return os.environ.get('TIMM_DPA_TEST_MILVUS')
