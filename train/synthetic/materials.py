"""Light: sun, sky and what surfaces make of them. All radiances are relative to white in full light = 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .swatches import MATERIALS

__all__ = ['LINEAR', 'Light', 'shade', 'to_srgb']

_share = np.arange(256) / 255
#: sRGB 0..255 -> linear
LINEAR = np.where(_share <= 0.04045, _share / 12.92, ((_share + 0.055) / 1.055) ** 2.4).astype(np.float32)
_fine = np.arange(4097) / 4096
_SRGB = np.round(255 * np.where(_fine <= 0.0031308, _fine * 12.92, 1.055 * _fine ** (1 / 2.4) - 0.055)).astype(np.uint8)
_COLUMNS = np.array(MATERIALS, np.float32).T.copy()


@dataclass(frozen=True)
class Light:
    """Sun and sky over a place; directions in the coordinates of the scene.

    Attributes:
        sun: `(3,)` unit vector towards the sun.
        sunlight: `(3,)` of the sun on a plane that faces it; 0 under clouds.
        zenith, horizon: `(3,)` radiance of the sky.
        ground: `(3,)` radiance of the ground around.
        skyline: `(3,)` radiance of houses and trees at the horizon.
        softness: radius of the sun as tangent of the angle, widened by haze.
        clouds: `(K, 5)`: unit direction, sharpness, brightness.
        obstacles: `(9,)`: mean height of the skyline (as z of a unit vector), how it leans to x and y, and two waves of
            roofs and trees along it, each a direction, and their phases.
    """

    sun: np.ndarray
    sunlight: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    ground: np.ndarray
    skyline: np.ndarray
    softness: float
    clouds: np.ndarray
    obstacles: np.ndarray

    def turned(self, angle: float) -> Light:
        """The same light in coordinates turned by `angle`, radians against the clock."""
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        clouds = self.clouds.copy()
        clouds[:, :3] = clouds[:, :3] @ turn.T
        lean = (self.obstacles[1:7].reshape(3, 2) @ turn[:2, :2].T).ravel()
        return Light(
            (turn @ self.sun).astype(np.float32),
            self.sunlight,
            self.zenith,
            self.horizon,
            self.ground,
            self.skyline,
            self.softness,
            clouds.astype(np.float32),
            np.array([self.obstacles[0], *lean, *self.obstacles[7:]], np.float32),
        )

    def sky_on_ground(self) -> np.ndarray:
        """Light of the whole sky on a level plane, as radiance of white."""
        return 0.62 * self.zenith + 0.38 * self.horizon

    def _roofs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        _, _, _, a, b, c, d, e, f = self.obstacles
        return np.float32(0.09) * np.sin(a * x + b * y + e) * np.sin(c * x + d * y + f)

    def mirrored(self, ways: np.ndarray) -> np.ndarray:
        """What is seen in directions `(3, N)`: `(3, N)` float32."""
        x, y, z = ways
        low = 1 - np.clip(z, 0, 1)
        low *= low * low
        glow = np.clip(self.sun @ ways, 0, 1)
        glow *= glow
        glow *= glow
        glow *= glow * glow
        glow *= 2.2
        for cloud in self.clouds:
            glow += np.exp(cloud[3] * (cloud[:3] @ ways - 1)) * cloud[4]
        height = self.obstacles[0] + self.obstacles[1] * x + self.obstacles[2] * y
        height += self._roofs(x, y)
        hidden = np.clip((height - z) * 14 + 0.5, 0, 1)
        below = np.clip(-z * 8, 0, 1)
        bright = np.empty_like(ways)
        for channel in range(3):
            row = bright[channel]
            np.multiply(low, self.horizon[channel] - self.zenith[channel], out=row)
            row += self.zenith[channel]
            row += glow * self.horizon[channel]
            row += hidden * (self.skyline[channel] - row)
            row += below * (self.ground[channel] - row)
        return bright


def shade(
    light: Light, views: np.ndarray, normals: np.ndarray, openness: np.ndarray, texels: np.ndarray, sunlit: np.ndarray
) -> np.ndarray:
    """Radiance of solid surfaces.

    Args:
        light: sun and sky.
        views: `(3, N)` unit directions of the rays.
        normals: `(3, N)` unit.
        openness: `(N,)` share of the sky that is free.
        texels: `(N, 4)` uint8.
        sunlit: `(N,)` 0..1.

    Returns:
        `(3, N)` float32.
    """
    facing, diffuse, flakes, clarity = (column[texels[:, 3]] for column in _COLUMNS)
    cosine = views[0] * normals[0] + views[1] * normals[1] + views[2] * normals[2]
    ways = normals * (-2 * cosine)
    ways += views
    lit = np.clip(light.sun @ normals, 0, 1)
    lit *= sunlit
    upward = 0.5 + 0.5 * normals[2]
    from_sky = upward * openness
    from_ground = (1 - upward) * (0.4 + 0.6 * openness)
    grazing = np.clip(1 - np.abs(cosine), 0, 1)
    square = grazing * grazing
    fresnel = facing + (1 - facing) * (0.15 + 0.85 * clarity) * square * square * grazing
    wide = np.clip(light.sun @ ways, 0, 1)
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
    coat = fresnel * (0.3 + 0.7 * clarity) * (0.35 + 0.65 * openness)
    mirror = light.mirrored(ways)
    base = flakes * (0.75 * (0.35 + 0.65 * openness))
    wide *= sunlit
    wide *= 1.15 * flakes
    lit = lit * diffuse + wide
    from_sky, from_ground = (part * (diffuse + 0.55 * flakes) for part in (from_sky, from_ground))
    level = light.sky_on_ground()
    colour = np.empty_like(ways)
    for channel in range(3):
        row = colour[channel]
        np.multiply(lit, light.sunlight[channel], out=row)
        row += from_sky * level[channel]
        row += from_ground * light.ground[channel]
        row += base * mirror[channel]
        row *= LINEAR[texels[:, channel]]
        row += coat * mirror[channel]
        row += glint * light.sunlight[channel]
    return colour


def to_srgb(radiance: np.ndarray) -> np.ndarray:
    """sRGB as a camera writes it: bright parts roll off. `(..., 3)` float32 -> uint8."""
    knee = 0.72
    over = np.clip(radiance - knee, 0, None)
    room = 1 - knee
    rolled = np.minimum(radiance, knee) + room * over / (over + 1.15 * room)
    return _SRGB[(np.clip(rolled, 0, 1) * 4096).astype(np.int32)]
