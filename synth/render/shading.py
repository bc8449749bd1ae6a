"""Light, and how surfaces reflect it. All radiances are relative to white in full light = 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..vehicles.swatches import MATERIALS
from ..world.sky import REACH, SIZE

__all__ = ['LINEAR', 'Light', 'shade', 'to_srgb']

_share = np.arange(256) / 255
#: sRGB 0..255 -> linear
LINEAR = np.where(_share <= 0.04045, _share / 12.92, ((_share + 0.055) / 1.055) ** 2.4).astype(np.float32)
_fine = np.arange(4097) / 4096
_SRGB = np.round(255 * np.where(_fine <= 0.0031308, _fine * 12.92, 1.055 * _fine ** (1 / 2.4) - 0.055)).astype(np.uint8)
_COLUMNS = np.array(MATERIALS, np.float32).T.copy()
# the middle of the map, and jitter between its texels, without which a flat window shows tiles
_JITTER = np.random.default_rng(0).triangular(-1, 0, 1, (2, 7919)).astype(np.float32) + np.float32(SIZE / 2)


@dataclass(frozen=True)
class Light:
    """Sun and sky over a place, with directions in the coordinates of the scene.

    Attributes:
        sun: `(3,)` unit vector to the sun.
        sunlight: `(3,)` radiance by the sun of a white surface that faces it; 0 under clouds.
        zenith, horizon: `(3,)` radiance of the sky.
        ground: `(3,)` radiance of the ground around.
        angular_radius: tangent of the sun's angular radius, widened by haze.
        surroundings: `(3, SIZE * SIZE)` float32 environment map, see `sample_sky`.
        angle: angle by which the scene's coordinates are rotated against those of `surroundings`, radians
            counterclockwise.
    """

    sun: np.ndarray
    sunlight: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    ground: np.ndarray
    angular_radius: float
    surroundings: np.ndarray
    angle: float = 0.0

    def rotated(self, angle: float) -> Light:
        """Return the same light in coordinates rotated by `angle`, radians counterclockwise."""
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return replace(self, sun=(turn @ self.sun).astype(np.float32), angle=self.angle + angle)

    def sky_on_ground(self) -> np.ndarray:
        """Return `(3,)`: the radiance of a white, level surface under the whole sky."""
        return 0.62 * self.zenith + 0.38 * self.horizon

    def mirrored(self, directions: np.ndarray) -> np.ndarray:
        """Look up the surroundings in `(3, N)` directions: `(3, N)` float32 radiance."""
        x, y, z = directions
        c, s = (np.float32(v(self.angle) * SIZE / 2 / REACH) for v in (np.cos, np.sin))
        scale = 1 / (1 + np.maximum(z, np.float32(-0.25)))
        column, row = (c * x - s * y) * scale, (s * x + c * y) * scale
        for index, jitter in zip((column, row), _JITTER, strict=True):
            index += np.resize(jitter, len(index))
            np.clip(index, 0, SIZE - 1, out=index)
        bright = np.take(self.surroundings, row.astype(np.int32) * SIZE + column.astype(np.int32), axis=1)
        below = np.clip(np.float32(-8) * z, 0, 1)
        for channel in range(3):
            bright[channel] += below * (self.ground[channel] - bright[channel])
        return bright


def shade(
    light: Light,
    views: np.ndarray,
    normals: np.ndarray,
    ambient_occlusion: np.ndarray,
    texels: np.ndarray,
    sunlit: np.ndarray,
) -> np.ndarray:
    """Shade surfaces.

    Args:
        light: sun and sky.
        views: `(3, N)` unit directions of the rays.
        normals: `(3, N)` unit normals.
        ambient_occlusion: `(N,)` share of the sky that is free.
        texels: `(N, 4)` uint8: red, green, blue, material.
        sunlit: `(N,)` share of the sun that is free.

    Returns:
        `(3, N)` float32 radiance.
    """
    facing, diffuse, flakes, clarity = (column[texels[:, 3]] for column in _COLUMNS)
    cosine = views[0] * normals[0] + views[1] * normals[1] + views[2] * normals[2]
    directions = normals * (-2 * cosine)
    directions += views
    lit = np.clip(light.sun @ normals, 0, 1)
    lit *= sunlit
    upward = 0.5 + 0.5 * normals[2]
    from_sky = upward * ambient_occlusion
    from_ground = (1 - upward) * (0.4 + 0.6 * ambient_occlusion)
    grazing = np.clip(1 - np.abs(cosine), 0, 1)
    square = grazing * grazing
    # dark paint shows little but its clear coat
    dark = clarity * np.clip(1 - LINEAR[texels[:, 1]] * 7, 0, 1)
    facing = facing * (1 + np.float32(0.7) * dark)
    fresnel = facing + (1 - facing) * (0.15 + 0.85 * clarity) * square * square * grazing
    wide = np.clip(light.sun @ directions, 0, 1)
    wide *= wide
    wide *= wide
    wide *= wide  # to the power of 8
    sharp = wide * wide
    sharp *= sharp
    sharp *= sharp  # 64
    tight = sharp * sharp
    tight *= tight
    tight *= tight  # 512
    glint = fresnel * sunlit * (clarity * 34 * tight + 1.6 * sharp)
    coat = fresnel * (0.3 + 0.7 * clarity) * (0.35 + 0.65 * ambient_occlusion)
    mirror = light.mirrored(directions)
    base = flakes * (0.75 * (0.35 + 0.65 * ambient_occlusion))
    wide *= sunlit
    wide *= 1.15 * flakes
    lit = lit * diffuse + wide
    from_sky, from_ground = (part * (diffuse + 0.55 * flakes) for part in (from_sky, from_ground))
    level = light.sky_on_ground()
    color = np.empty_like(directions)
    for channel in range(3):
        row = color[channel]
        np.multiply(lit, light.sunlight[channel], out=row)
        row += from_sky * level[channel]
        row += from_ground * light.ground[channel]
        row += base * mirror[channel]
        row *= LINEAR[texels[:, channel]]
        row += coat * mirror[channel]
        row += glint * light.sunlight[channel]
    return color


def to_srgb(radiance: np.ndarray) -> np.ndarray:
    """Convert `(..., 3)` float32 radiance to uint8 sRGB as a camera does, with highlights that roll off."""
    knee = 0.72
    over = np.clip(radiance - knee, 0, None)
    room = 1 - knee
    rolled = np.minimum(radiance, knee) + room * over / (over + 1.15 * room)
    return _SRGB[(np.clip(rolled, 0, 1) * 4096).astype(np.int32)]
