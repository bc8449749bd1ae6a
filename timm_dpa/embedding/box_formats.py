"""The formats of files with boxes: what their columns mean, and how a format is told from the others. This module
imports nothing heavy, so that a command's help can list the formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ['BOX_FORMATS', 'NUMBERED', 'BoxRow', 'NumberFormat']

#: name -> what a line is
BOX_FORMATS = {
    'mot': 'MOTChallenge: frame,id,x,y,w,h[,score[,class[,visibility]]], or ten columns; no header, frames from 1',
    'visdrone': 'VisDrone-MOT: frame,id,x,y,w,h,score,class,truncation,occlusion; no header, frames from 1',
    'uavdt': 'UAVDT: frame,id,x,y,w,h,out-of-view,occlusion,class; no header, frames from 1',
    'geotrax': 'geo-trax: frame,id,xc,yc,w,h,..., 14 or 15 columns; no header, frames from 0',
    'csv': 'header frame[,id],x,y,w,h or frame[,id],x1,y1,...,x4,y4, and if known class,score,visibility',
    'dota': 'DOTA: x1 y1 x2 y2 x3 y3 x4 y4 class difficulty [id], a file for each image, or a folder of them',
}


class BoxRow(NamedTuple):
    """A box of a file.

    Attributes:
        frame: number of the frame, or the name of its image without its suffix where the file has names.
        track: id of the track, empty where it is not known.
        box: in pixels; left, upper, right and lower edge, or x and y of four corners.
        kind: class, by name where the format has names for its numbers; empty where it is not known.
        score: confidence of a detector, 1 where it is not known.
        visibility: share of the vehicle that is seen, 0..1, None where it is not known.
        ignored: the file says that this box is not to be used.
        line: where it is in the file, from 1.
    """

    frame: int | str
    track: str
    box: tuple[float, ...]
    kind: str = ''
    score: float = 1.0
    visibility: float | None = None
    ignored: bool = False
    line: int = 0


Values = Sequence[float]


@dataclass(frozen=True)
class NumberFormat:
    """A format whose lines are numbers.

    Attributes:
        columns: how many there may be.
        fits: whether numbers (beyond the first six, a line each) can be of this format.
        row: makes a `BoxRow` of the numbers of a line.
        first: number of the first frame; None: 0 where the file has a frame 0, else 1.
        classes: number -> name.
        no_vehicles: classes that are left out unless they are asked for.
    """

    columns: range
    fits: Callable[[Sequence[Values]], bool]
    row: Callable[[Values, int], BoxRow]
    first: int | None = None
    classes: dict[int, str] = field(default_factory=dict)
    no_vehicles: tuple[str, ...] = ()


_VISDRONE = {
    0: 'ignored-region',
    1: 'pedestrian',
    2: 'people',
    3: 'bicycle',
    4: 'car',
    5: 'van',
    6: 'truck',
    7: 'tricycle',
    8: 'awning-tricycle',
    9: 'bus',
    10: 'motor',
    11: 'others',
}
_UAVDT = {1: 'car', 2: 'truck', 3: 'bus'}
_GEOTRAX = {0: 'car', 1: 'bus', 2: 'truck', 3: 'motorcycle'}
#: by their definitions: no occlusion; up to half, half and more
_VISDRONE_SEEN = {0: 1.0, 1: 0.5, 2: 0.0}
#: none; 70 to 100 %, 30 to 70 %, up to 30 % of the vehicle is hidden
_UAVDT_SEEN = {1: 1.0, 2: 0.0, 3: 0.3, 4: 0.7}
#: in the frame; 30 to 50 %, up to 30 % are outside
_UAVDT_INSIDE = {1: 1.0, 2: 0.5, 3: 0.7}


def _track(value: float) -> str:
    return '' if value < 0 else f'{value:.15g}'


def _edges(values: Values) -> tuple[float, ...]:
    x, y, w, h = values[2:6]
    return x, y, x + w, y + h


def _among(lines: Sequence[Values], column: int, allowed: Sequence[int]) -> bool:
    return all(line[column] in allowed for line in lines)


def _mot_fits(lines: Sequence[Values]) -> bool:
    if len(lines[0]) == 3:  # flag or score, class, visibility
        return all(line[0] <= 1 and line[1] == int(line[1]) and (line[2] == -1 or 0 <= line[2] <= 1) for line in lines)
    if len(lines[0]) == 4:  # score, and a place in the world or -1
        return all(set(line[1:]) == {-1} for line in lines) or any(
            value != int(value) for line in lines for value in line[1:]
        )
    return True


def _mot_row(values: Values, line: int) -> BoxRow:
    rest = [*values[6:], *[-1.0] * 3][:3]
    score, kind, seen = rest if len(values) <= 9 else (rest[0], -1.0, -1.0)
    score = score if len(values) > 6 else 1.0
    return BoxRow(
        int(values[0]),
        _track(values[1]),
        _edges(values),
        kind='' if kind < 0 else f'{int(kind)}',
        score=score,
        visibility=seen if seen >= 0 else None,
        ignored=score == 0,
        line=line,
    )


def _visdrone_fits(lines: Sequence[Values]) -> bool:
    return _among(lines, 1, range(12)) and _among(lines, 2, (-1, 0, 1)) and _among(lines, 3, (-1, 0, 1, 2))


def _visdrone_row(values: Values, line: int) -> BoxRow:
    score, kind, cut, hidden = values[6:10]
    known = cut >= 0 and hidden >= 0
    seen = min(_VISDRONE_SEEN.get(int(cut), 0.0), _VISDRONE_SEEN.get(int(hidden), 0.0)) if known else None
    name = _VISDRONE.get(int(kind), f'{int(kind)}')
    ignored = score == 0 or kind == 0
    return BoxRow(int(values[0]), _track(values[1]), _edges(values), name, score, seen, ignored, line)


def _uavdt_fits(lines: Sequence[Values]) -> bool:
    return _among(lines, 0, (1, 2, 3)) and _among(lines, 1, (1, 2, 3, 4)) and _among(lines, 2, (1, 2, 3))


def _uavdt_row(values: Values, line: int) -> BoxRow:
    outside, hidden, kind = (int(value) for value in values[6:9])
    seen = min(_UAVDT_INSIDE.get(outside, 0.0), _UAVDT_SEEN.get(hidden, 0.0))
    name = _UAVDT.get(kind, f'{kind}')
    return BoxRow(int(values[0]), _track(values[1]), _edges(values), name, visibility=seen, line=line)


def _geotrax_row(values: Values, line: int) -> BoxRow:
    x, y, w, h = values[2:6]
    kind = -1 if math.isnan(values[10]) else int(values[10])
    score = 1.0 if math.isnan(values[11]) else values[11]
    return BoxRow(
        int(values[0]),
        _track(values[1]),
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
        '' if kind < 0 else _GEOTRAX.get(kind, f'{kind}'),
        score,
        line=line,
    )


#: name -> format of lines of numbers
NUMBERED = {
    'mot': NumberFormat(range(6, 11), _mot_fits, _mot_row),
    'visdrone': NumberFormat(
        range(10, 11),
        _visdrone_fits,
        _visdrone_row,
        classes=_VISDRONE,
        no_vehicles=('ignored-region', 'pedestrian', 'people', 'bicycle', 'others'),
    ),
    'uavdt': NumberFormat(range(9, 10), _uavdt_fits, _uavdt_row, classes=_UAVDT),
    'geotrax': NumberFormat(range(14, 16), lambda lines: True, _geotrax_row, first=0, classes=_GEOTRAX),
}
