"""The contact sheet of a rendered data set: vehicles in rows, their images in columns."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from .plan import Plan

__all__ = ['contact_sheet']

_LEFT = 118  # width of the text before the images, pixels
_GAP = 4  # pixels between two cells


def contact_sheet(
    root: str | os.PathLike[str],
    plan: Plan,
    file: str | os.PathLike[str],
    *,
    rows: int = 20,
    columns: int = 12,
    cell: int = 128,
) -> Path:
    """Draw the first vehicles of a rendered data set; siblings are in neighboring rows.

    Args:
        root: folder of the data set.
        plan: plan by which it was rendered.
        file: image file to write.
        rows: number of vehicles.
        columns: number of images of each; of a track, they are spread from its first frame to its last.
        cell: side of a cell in pixels; images are resized to it.

    Returns:
        The file.
    """
    rows, columns = min(rows, plan.ids), min(columns, plan.images_per_id)
    last = plan.images_per_id - 1 if plan.tracks else columns - 1
    chosen = [round(column * last / max(1, columns - 1)) for column in range(columns)]
    pitch = cell + _GAP
    sheet = Image.new('RGB', (_LEFT + columns * pitch, rows * pitch), (32, 32, 34))
    pen = ImageDraw.Draw(sheet)
    for row in range(rows):
        identity = plan.identity(row)
        top = row * pitch
        text = [f'{row:04d}  model {identity.model.number}', f'{identity.paint.name} {identity.model.kind}']
        pen.multiline_text((4, top + 2), '\n'.join([*text, *sorted(identity.details)]), fill=(226, 226, 226))
        if row and row % plan.siblings == 0:
            pen.line((0, top - 2, sheet.width, top - 2), fill=(240, 180, 60), width=2)
        shots = plan.shots(row)
        for column, index in enumerate(chosen):
            with Image.open(Path(root) / shots[index][2]) as image:
                method = Image.Resampling.BICUBIC if max(image.size) < cell else Image.Resampling.LANCZOS
                small = ImageOps.contain(image.convert('RGB'), (cell, cell), method)
            left = _LEFT + column * pitch
            sheet.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
    sheet.save(file)
    return Path(file)
