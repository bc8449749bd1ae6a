"""A process of its own that uses the package against a loopback Hub, one request after the other.

The variables of the Hub's client are read when it is imported, so that a test process cannot change them; and importing
timm takes seconds, so that a process serves many tests.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TOKEN = 'hf_writer'


class HubClient:
    """Starts the process with the environment of a `LoopbackHub`; `with` ends it.

    Args:
        home: its HF_HOME, and working folder.
        environment: variables beside those of this process.
        site: goes to the front of PYTHONPATH, for another copy of the package.
    """

    def __init__(self, home: Path, environment: dict[str, str], site: Path | None = None) -> None:
        self.home, self.environment, self.site = home, environment, site

    def __enter__(self) -> 'HubClient':
        self.home.mkdir(parents=True, exist_ok=True)
        path = [str(Path(__file__).parents[2]), os.environ.get('PYTHONPATH', '')]
        environment = {**os.environ, **self.environment, 'HF_HOME': str(self.home)}
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, [str(self.site or ''), *path]))
        self.errors = (self.home / 'stderr.txt').open('w+')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'tests.support.hub_client'],
            cwd=self.home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        return self

    def __exit__(self, *exc_info) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def create(self, name: str, **kwargs: Any) -> Any:
        """`timm.create_model(name, pretrained=True, **kwargs)`: embeddings as hexadecimal digits, or the error."""
        return self._ask('create', name=name, **kwargs)

    def cli(self, *argv: str) -> tuple[int, str, str]:
        """`timm-dpa ...`: exit status, what it printed, and its errors with what others have logged."""
        log = self.home / 'stderr.txt'
        before = log.stat().st_size
        status, out, errors = self._ask('cli', argv=list(argv))
        with log.open('rb') as file:
            file.seek(before)
            return status, out, file.read().decode() + errors

    def _ask(self, verb: str, **arguments: Any) -> Any:
        self.process.stdin.write(json.dumps({'verb': verb, **arguments}) + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise AssertionError(f'the client died: {self.errors.read()}')
        return json.loads(answer)


def embed(model: Any) -> str:
    """Output for fixed images: two processes with the same weights give the same digits."""
    import torch

    images = torch.randn(2, 3, *model.pretrained_cfg['input_size'][1:], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model.eval()(images).numpy().tobytes().hex()


def _create(name: str, **kwargs: Any) -> Any:
    import timm

    try:
        return embed(timm.create_model(name, pretrained=True, **kwargs))
    except Exception as error:
        return {'type': type(error).__name__, 'message': str(error)}


def _cli(argv: list[str]) -> Any:
    from timm_dpa.cli.main import main

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), errors.getvalue()


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what else is printed is no answer
    import timm_dpa  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop('verb')
        answers.write(json.dumps({'create': _create, 'cli': _cli}[verb](**request)) + '\n')
        answers.flush()


if __name__ == '__main__':
    _serve()
