"""The layout `mot`: annotated sequences of MOTChallenge, VisDrone-MOT and UAVDT, whose crops are made once."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import time
from pathlib import Path

from timm_dpa.embedding.crop_files import CropOptions, write_crops
from timm_dpa.embedding.sequences import find_sequences

from .layouts import LayoutError, Row

__all__ = ['read_sequences']

_logger = logging.getLogger(__name__)

#: hidden, so that no search for images finds them
_CROPS = '.timm-dpa-crops'
#: neighbors in time look alike; a few tens of images of a vehicle say as much as hundreds
_OPTIONS = CropOptions(every=10, min_side=8)


def read_sequences(home: Path) -> tuple[list[Row], list[str]]:
    """The crops of the sequences in a folder, and what is to be noted about them.

    They are made at the first time, in a hidden folder of `home`, and again when the annotation has changed. Everything
    that works on images with identities then works on them: an image stays a file with a path, which can be shown,
    compared and copied.

    Raises:
        LayoutError: there are no sequences, or no boxes are left.
        ValueError: damaged files, see `write_crops`.
        OSError: the folder cannot be written; the message says what else to do.
    """
    try:
        sequences = find_sequences(home)
    except ValueError as error:
        raise LayoutError(str(error)) from error
    folder = home / _CROPS
    try:
        report = _crops(sequences, folder)
    except PermissionError as error:
        raise PermissionError(
            f'{folder}: cannot be written ({error.strerror}), where the crops of the sequences go; cut them elsewhere: '
            f'timm-dpa crops {home} --every 10 --out crops'
        ) from error
    parts = {sequence.name: sequence.part for sequence in sequences}
    with open(report.table, encoding='utf-8', newline='') as file:
        rows = [
            Row(os.path.join(folder, entry['path']), entry['pid'], part=parts[entry['sequence']])
            for entry in csv.DictReader(file)
        ]
    notes = [
        f'{report.crops} crops of every {_OPTIONS.every}th frame of {report.sequences} sequences, kept in {folder}; '
        'timm-dpa crops makes others'
    ]
    if report.skipped:
        notes.append(f'{report.skipped} boxes are left out: outside of their frame, or smaller than 8 pixels')
    return rows, notes


def _crops(sequences, folder: Path):
    said = False
    while True:
        try:
            return write_crops(sequences, folder, _OPTIONS)
        except BlockingIOError as error:  # another process of a distributed training makes them
            if not said:
                _logger.warning('waiting: %s', error)
            said = True
            time.sleep(0.5)
        except ValueError as error:
            if 'has crops of other' not in str(error):
                raise
            shutil.rmtree(folder)  # the annotation, or this package, has changed since
