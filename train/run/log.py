"""The log of a run: a text, CSV tables, TensorBoard and the terminal."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from types import TracebackType
from typing import Any

from huggingface_hub.utils import tqdm

from timm_dpa.files import write_bytes

from .folder import RunFolder

__all__ = ['RunLog', 'read_table', 'table_bytes']

_logger = logging.getLogger(__name__)


class RunLog:
    """Writes `run.log`, `steps.csv` and TensorBoard files of a run.

    Args:
        folder: of the run.
        step: where the run begins or resumes; later rows, of a run that was killed, are dropped.
        active: whether this process writes.
        tensorboard: write TensorBoard files, too, where the package is there.
    """

    def __init__(self, folder: RunFolder, step: int, active: bool, tensorboard: bool) -> None:
        self.active = active
        self.writer = None
        self._handler: logging.Handler | None = None
        if not active:
            return
        self._steps = folder.steps
        rows = [row for row in read_table(self._steps) if int(row['step']) <= step]
        write_bytes(self._steps, table_bytes(rows))
        self._handler = logging.FileHandler(folder.log, encoding='utf-8', errors='backslashreplace')
        self._handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
        # warnings of the package are part of the story
        logging.getLogger('timm_dpa').addHandler(self._handler)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                _logger.warning("no TensorBoard files: pip install 'timm-dpa[train]', or run.tensorboard=false")
            else:
                self.writer = SummaryWriter(str(folder.tensorboard), purge_step=step + 1)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._handler is not None:
            if error is not None:
                self._record(f'stopped: {type(error).__name__}: {error}')
            logging.getLogger('timm_dpa').removeHandler(self._handler)
            self._handler.close()
        if self.writer is not None:
            self.writer.close()

    def say(self, text: str) -> None:
        """A line for the terminal and the text log."""
        if self.active:
            tqdm.write(text)
            self._record(text)

    def _record(self, text: str) -> None:
        if self._handler is not None:
            self._handler.handle(logging.LogRecord(__name__, logging.INFO, '', 0, text, None, None))

    def step(self, row: dict[str, Any]) -> None:
        """A row of `steps.csv`; it has a `step`."""
        if not self.active:
            return
        with self._steps.open('a', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow({key: _short(value) for key, value in row.items()})
        self.scalars({key: value for key, value in row.items() if key not in ('step', 'epoch')}, row['step'], 'train')

    def scalars(self, values: dict[str, Any], step: int, group: str) -> None:
        """Numbers for TensorBoard."""
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(f'{group}/{key}', value, step)
            self.writer.flush()


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV table; a last one that was cut off is left out. There are none without the file."""
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and None not in row]


def table_bytes(rows: list[dict[str, Any]]) -> bytes:
    """A CSV table of rows, which may lack some of the columns."""
    if not rows:
        return b''
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), restval='')
    writer.writeheader()
    writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _short(value: Any) -> Any:
    return f'{value:.6g}' if isinstance(value, float) else value
