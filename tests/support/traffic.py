"""A drone's frames of drawn vehicles that drive, with their boxes and who they are."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from timm_dpa.train.data.toy_vehicles import draw_car, park


class Moment(NamedTuple):
    """A frame, `(H, W, 3)` uint8 RGB, the boxes of a perfect detector, `(N, 4)` x1, y1, x2, y2, and whose they are."""

    frame: np.ndarray
    boxes: np.ndarray
    vehicles: list[int]


def traffic(count: int = 16, vehicles: int = 4, hidden: range = range(5, 11), swap: bool = True) -> list[Moment]:
    """Vehicles in lanes, every second one under a bridge, so that there is no box of it, in the frames `hidden`.

    With `swap` they leave it in another lane than they entered it: places do not tell who is who.
    """
    side = 96
    noise = np.random.default_rng(5)
    cars = [draw_car(vehicle + 8, side).rotate(270) for vehicle in range(vehicles)]
    moments = []
    for time in range(count):
        ground = Image.new('RGB', (side * 6, side * vehicles), '#6b6d70')
        boxes, seen = [], []
        for vehicle, car in enumerate(cars):
            under = vehicle % 2 == 0
            if under and time in hidden:
                continue
            lane = (vehicle + 2) % vehicles if swap and under and time >= hidden.stop else vehicle
            x, y = side // 4 + 12 * time + (side if vehicle % 2 else 0), side * lane
            tile = ground.crop((x, y, x + side, y + side))
            park(tile, car, 2)
            ground.paste(tile, (x, y))
            left, top, right, bottom = car.getbbox()
            boxes.append([x + left, y + top, x + right, y + bottom])
            seen.append(vehicle)
        pixels = np.asarray(ground) + noise.normal(0, 3, (ground.height, ground.width, 3))
        moments.append(Moment(pixels.clip(0, 255).astype(np.uint8), np.array(boxes, float), seen))
    return moments


def numbers_of(moment: Moment, tracks: dict[int, np.ndarray]) -> dict[int, int]:
    """Vehicle -> number of the track, whose box is the nearest one, for `tracks`: number -> box."""
    found = {}
    for number, box in tracks.items():
        distance = np.abs(moment.boxes - box).sum(axis=1)
        if distance.min() < 60:
            found[moment.vehicles[int(distance.argmin())]] = number
    return found
