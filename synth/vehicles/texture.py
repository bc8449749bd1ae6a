"""The texture of a vehicle: windows, lamps, seams, stripes and letters, drawn once a vehicle as views from five sides.

A triangle takes its colors from the view that it faces. The texture is looked up at the points that rays hit, which
costs the same however much is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from ..render.shapes import Mesh

__all__ = ['FRONT', 'LEFT', 'REAR', 'RIGHT', 'SIDES', 'TOP', 'Atlas', 'Color']

Color = tuple[int, int, int, int]  # sRGB 0..255 and the index of a material

TOP, LEFT, RIGHT, FRONT, REAR = range(5)
SIDES = (LEFT, RIGHT)
#: view -> axis and direction of its columns, of its rows
_AXES = {TOP: (0, 1, 1, -1), LEFT: (0, -1, 2, -1), RIGHT: (0, 1, 2, -1), FRONT: (1, 1, 2, -1), REAR: (1, -1, 2, -1)}


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class Atlas:
    """The five views of a vehicle. All points are in meters in vehicle coordinates."""

    def __init__(self, length: float, width: float, height: float, fill: Color) -> None:
        self.scale = min(110.0, 760.0 / length)  # texels a meter
        self.low = np.array([-length / 2 - 0.15, -width / 2 - 0.1, -0.02])
        self.high = np.array([length / 2 + 0.15, width / 2 + 0.1, height + 0.1])
        size = np.ceil((self.high - self.low) * self.scale).astype(int)
        self._pictures = {v: Image.new('RGBA', (int(size[a]), int(size[b])), fill) for v, (a, _, b, _) in _AXES.items()}
        self._pens = {view: ImageDraw.Draw(picture) for view, picture in self._pictures.items()}
        for pen in self._pens.values():
            pen.fontmode = '1'  # blending two materials gives none

    def _project(self, view: int, points: ArrayLike) -> np.ndarray:
        """Project `(..., 3)` points to `(..., 2)` column and row in a view."""
        at = np.asarray(points, np.float64)
        a, right, b, _ = _AXES[view]
        column = at[..., a] - self.low[a] if right > 0 else self.high[a] - at[..., a]
        return np.stack([column, self.high[b] - at[..., b]], -1) * self.scale

    def polygon(self, views: Sequence[int] | int, points: ArrayLike, color: Color) -> None:
        """Fill a polygon of (x, y, z); each view leaves out the axis along which it looks."""
        for view in _listed(views):
            self._pens[view].polygon([tuple(p) for p in self._project(view, points)], fill=color)

    def rectangle(self, views: Sequence[int] | int, low: Sequence[float], high: Sequence[float], color: Color) -> None:
        """Fill what lies in a block between two corners, in each view."""
        for view in _listed(views):
            (x0, y0), (x1, y1) = self._project(view, [low, high])
            self._pens[view].rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=color)

    def line(self, views: Sequence[int] | int, points: ArrayLike, color: Color, width: float = 0.012) -> None:
        """Draw a line through points; `width` in meters."""
        for view in _listed(views):
            flat = [tuple(p) for p in self._project(view, points)]
            self._pens[view].line(flat, fill=color, width=max(1, round(width * self.scale)))

    def disc(self, views: Sequence[int] | int, center: Sequence[float], radius: float, color: Color) -> None:
        """Fill a disc; `radius` in meters."""
        r = radius * self.scale
        for view in _listed(views):
            x, y = self._project(view, center)
            self._pens[view].ellipse((x - r, y - r, x + r, y + r), fill=color)

    def text(self, view: int, center: Sequence[float], text: str, height: float, color: Color, turn: int = 0) -> None:
        """Write letters of `height` meters; `turn` quarter turns counterclockwise."""
        font = _font(max(6, round(height * self.scale * 1.35)))
        left, top, right, bottom = font.getbbox(text)
        mask = Image.new('1', (max(1, int(right - left)), max(1, int(bottom - top))))
        pen = ImageDraw.Draw(mask)
        pen.fontmode = '1'
        pen.text((-left, -top), text, fill=1, font=font)
        mask = mask.rotate(90 * turn, expand=True)
        x, y = self._project(view, center)
        self._pictures[view].paste(color, (round(x - mask.width / 2), round(y - mask.height / 2)), mask)

    def spots(self, rng: np.random.Generator, amount: float, tone: tuple[int, int, int], fade: float = 0.0) -> None:
        """Paint clouds of dirt, more of it low down.

        Args:
            rng: generator of the clouds.
            amount: share of the dirt, from 0.
            tone: its color, sRGB 0..255.
            fade: standard deviation by which the brightness of the paint varies, relative to it.
        """
        for view, picture in self._pictures.items():
            pixels = np.array(picture)
            rows, columns = pixels.shape[:2]
            coarse = rng.normal(0, 1, (max(2, rows // 40), max(2, columns // 40))).astype(np.float32)
            cloud = np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))
            low = 0.0 if view == TOP else np.linspace(-0.4, 1.0, rows)[:, None] ** 3
            share = np.clip((0.35 + 0.22 * cloud + low) * amount, 0, 0.8)[..., None].astype(np.float32)
            worn = pixels[..., :3] * (1 - share) * (1 + np.float32(fade) * cloud[..., None]) + np.array(tone) * share
            pixels[..., :3] = np.clip(worn, 0, 255).astype(np.uint8)
            picture.paste(Image.fromarray(pixels))

    def finish(self, mesh: Mesh, swatches: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Lay out the views in one texture.

        Args:
            mesh: a triangle with color -1 takes the view that it faces; other colors are indices of `swatches`.
            swatches: `(N, 4)` uint8, plain colors.

        Returns:
            `(R * C, 4)` uint8 texels; `(T, 3, 2)` float32 texture coordinates (column, row) of each corner; and the
            number of columns C.
        """
        columns = max(max(p.width for p in self._pictures.values()), len(swatches))
        first = np.zeros((1, columns, 4), np.uint8)
        first[0, : len(swatches)] = swatches
        rows, offsets = [first], {}
        offset = 1
        for view, picture in self._pictures.items():
            page = np.zeros((picture.height, columns, 4), np.uint8)
            page[:, : picture.width] = np.asarray(picture)
            rows.append(page)
            offsets[view] = offset
            offset += picture.height
        corners = mesh.corners
        area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area /= np.maximum(np.linalg.norm(area, axis=1, keepdims=True), 1e-12)
        x, y, z = area.T
        facing = np.where(
            z > 0.5, TOP, np.where(np.abs(y) >= np.abs(x), np.where(y > 0, LEFT, RIGHT), np.where(x > 0, FRONT, REAR))
        )
        coordinates = np.zeros((len(corners), 3, 2), np.float32)
        for view, picture in self._pictures.items():
            mine = (mesh.colors < 0) & (facing == view)
            flat = np.clip(self._project(view, corners[mine]), 0.5, [picture.width - 0.5, picture.height - 0.5])
            coordinates[mine] = flat + np.array([0, offsets[view]])
        plain = mesh.colors >= 0
        coordinates[plain] = (mesh.colors[plain][:, None, None] * [1, 0] + 0.5).astype(np.float32)
        return np.concatenate(rows).reshape(-1, 4), coordinates, columns


def _listed(views: Sequence[int] | int) -> Sequence[int]:
    return [views] if isinstance(views, int) else views
