"""A contact sheet: identities by rows, their images by columns."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageDraw

from .dataset import Plan

__all__ = ['contact_sheet']


def contact_sheet(
    root: str | os.PathLike[str],
    plan: Plan,
    file: str | os.PathLike[str],
    *,
    rows: int = 20,
    columns: int = 12,
    cell: int = 128,
) -> Path:
    """Draw the first vehicles of a rendered data set; siblings lie one below the other, frames of a track side by side.

    Args:
        root: folder of the data set.
        plan: that it was rendered by.
        file: picture to write.
        rows: vehicles.
        columns: images of each; of a track, from its first frame to its last.
        cell: side of a cell in pixels; images are enlarged or reduced to it.

    Returns:
        The file.
    """
    rows, columns = min(rows, plan.ids), min(columns, plan.images_per_id)
    # a track is shown from its first frame to its last
    last = plan.images_per_id - 1 if plan.tracks else columns - 1
    chosen = [round(column * last / max(1, columns - 1)) for column in range(columns)]
    left = 118
    sheet = Image.new('RGB', (left + columns * (cell + 4), rows * (cell + 4)), (32, 32, 34))
    pen = ImageDraw.Draw(sheet)
    for row in range(rows):
        identity = plan.identity(row)
        top = row * (cell + 4)
        text = [
            f'{row:04d}  model {identity.model.number}',
            f'{identity.paint.name} {identity.model.kind}',
            *sorted(identity.details),
        ]
        pen.multiline_text((4, top + 2), '\n'.join(text), fill=(226, 226, 226))
        if row and row % plan.siblings == 0:
            pen.line((0, top - 2, sheet.width, top - 2), fill=(240, 180, 60), width=2)
        shots = plan.shots(row)
        for column, index in enumerate(chosen):
            path = shots[index][2]
            with Image.open(Path(root) / path) as image:
                scale = cell / max(image.size)
                size = tuple(max(1, round(v * scale)) for v in image.size)
                small = image.convert('RGB').resize(
                    size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
                )
            sheet.paste(small, (left + column * (cell + 4) + (cell - size[0]) // 2, top + (cell - size[1]) // 2))
    file = Path(file)
    sheet.save(file)
    return file
