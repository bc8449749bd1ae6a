"""Track vehicles from frame to frame by what they look like: one call of FeatureExtractor for the crops of a frame.

Needs `pip install timm-dpa`, and the boxes of a detector; or draws a sequence of its own:

    python examples/tracker.py --frames frames/ --boxes boxes.csv --model runs/dpa --out tracks.csv
    python examples/tracker.py --demo sequence/ --model runs/dpa

The boxes are a table with the columns frame (file name of an image, names in the order of time), x, y (upper left
corner), w, h (pixels). Boxes outside of their frame are left out. With a column vehicle, which tells who it really is,
right links are counted. The sequence of --demo is synthetic, flat drawings: it shows how things work, not how well.
"""

import argparse
import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import find_images
from timm_dpa.train.data.toy_vehicles import draw_car, park


def cut(frame: np.ndarray, boxes: list[list[float]], bgr: bool = False) -> list[np.ndarray]:
    """Crops of boxes `(x, y, w, h)`, as far as they lie in the frame; without pixels where they are outside of it.

    OpenCV reads BGR, the extractor wants RGB.
    """
    height, width = frame.shape[:2]
    crops = []
    for x, y, w, h in boxes:
        left, right = (min(max(v, 0), width) for v in (math.floor(x), math.ceil(x + w)))
        top, bottom = (min(max(v, 0), height) for v in (math.floor(y), math.ceil(y + h)))
        crops.append(frame[top:bottom, left:right, ::-1] if bgr else frame[top:bottom, left:right])
    return crops


class Tracker:
    """Links the detections of each frame to the vehicles seen before.

    A track is the mean of the unit vectors of its vehicle, compared by cosine. Greedy: the best pair is linked, then
    the best of the others, none below `min_similarity`, which is the number to set for a model; what is left over
    starts a track. A track last seen more than `patience` frames ago is forgotten. A tracker that knows motion or
    overlap adds them to `score`.
    """

    def __init__(self, min_similarity: float = 0.5, patience: int = 100) -> None:
        self.min_similarity, self.patience = min_similarity, patience
        self.sums: dict[int, np.ndarray] = {}  # of the vectors, by track
        self.seen: dict[int, int] = {}  # last frame
        self.frame = self.started = 0

    def update(self, vectors: np.ndarray) -> list[int]:
        """Tracks of the detections of the next frame, from 1; vectors are `(N, D)` of unit length, N may be 0."""
        self.frame += 1
        for number in [i for i, frame in self.seen.items() if self.frame - frame > self.patience]:
            del self.sums[number], self.seen[number]
        numbers, known = [0] * len(vectors), list(self.sums)
        if numbers and known:
            sums = np.stack(list(self.sums.values()))
            score = sums @ vectors.T / np.linalg.norm(sums, axis=1, keepdims=True)
            score[score < self.min_similarity] = -np.inf
            while score.max() > -np.inf:
                row, column = np.unravel_index(score.argmax(), score.shape)
                numbers[column] = known[row]
                score[row], score[:, column] = -np.inf, -np.inf
        for k, vector in enumerate(vectors):
            if not numbers[k]:
                numbers[k] = self.started = self.started + 1
            self.sums[numbers[k]] = self.sums.get(numbers[k], 0) + vector
            self.seen[numbers[k]] = self.frame
        return numbers


def read_boxes(path: str, frames: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the table by frame, each with its numbers as `box`."""
    rows: dict[str, list[dict[str, Any]]] = {frame: [] for frame in frames}
    with open(path, newline='', encoding='utf-8-sig') as file:
        table = csv.DictReader(file)
        missing = [column for column in ('frame', 'x', 'y', 'w', 'h') if column not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f'{path}: no column {", ".join(missing)}; it needs frame,x,y,w,h')
        row: dict[str, Any]
        for row in table:
            try:
                row['box'] = [float(row[column] or 'nan') for column in 'xywh']
            except ValueError:
                row['box'] = [math.nan] * 4
            if not (all(map(math.isfinite, row['box'])) and min(row['box'][2:]) > 0):
                raise ValueError(f'{path}, line {table.line_num}: x,y,w,h must be numbers, w and h above 0')
            if row['frame'] not in rows:
                raise ValueError(f'{path}, line {table.line_num}: there is no frame {row["frame"]}')
            rows[row['frame']].append(row)
    return rows


def draw_sequence(folder: Path, frames: int = 36, vehicles: int = 6, seed: int = 1) -> None:
    """`frames/` and `boxes.csv`: drawn vehicles go up and down, leave, and come back in another lane."""
    (folder / 'frames').mkdir(parents=True)  # and not where others have theirs
    random, side, height, away = np.random.default_rng(seed), 72, 320, 200
    rows: list[list[Any]] = [['frame', 'x', 'y', 'w', 'h', 'vehicle']]
    for time in range(frames):
        ground = Image.new('RGB', (side * vehicles, height), '#6b6d70')
        for vehicle in range(vehicles):
            lap, way = divmod(vehicle * (height + away) // vehicles + 20 * time, height + away)
            x, y = side * ((vehicle + lap) % vehicles), (way if vehicle % 2 else height - way) - side
            car = draw_car(vehicle + 8, side, seed).rotate(180 * (vehicle % 2) + random.uniform(-6, 6))
            tile = ground.crop((x, y, x + side, y + side))
            park(tile, car, 2)
            ground.paste(tile, (x, y))
            left, top, right, bottom = car.getbbox() or (0, 0, 0, 0)
            if y + bottom > 8 and y + top < height - 8:
                rows.append([f'{time:04d}.png', x + left, y + top, right - left, bottom - top, vehicle])
        light = np.linspace(0.7, 1.1, height)[:, None, None] * random.uniform(0.9, 1.1)
        pixels = np.asarray(ground) * light + random.normal(0, 4, (height, ground.width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / 'frames' / f'{time:04d}.png')
    with open(folder / 'boxes.csv', 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows(rows)


def count_links(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A link is right where a vehicle has the track that it had when it was last seen."""
    last: dict[str, tuple[int, int]] = {}
    near: list[bool] = []
    away: list[bool] = []
    for time, some in enumerate(rows.values()):
        for row in some:
            if row['vehicle'] in last:
                track, before = last[row['vehicle']]
                (near if before == time - 1 else away).append(track == row['track'])
            last[row['vehicle']] = (row['track'], time)
    both = f'{sum(near)} of {len(near)} from frame to frame, {sum(away)} of {len(away)} after an absence'
    return f'{len(last)} vehicles; right links: {both}'


def run(args: argparse.Namespace) -> None:
    if not Path(args.out).absolute().parent.is_dir():
        raise ValueError(f'{Path(args.out).parent}: no such folder for {Path(args.out).name}')
    frames = {path.relative_to(args.frames).as_posix(): path for path in find_images(args.frames)}
    rows = read_boxes(args.boxes, list(frames))
    extractor, tracker = FeatureExtractor(args.model), Tracker(args.min_similarity)
    outside = 0
    for name, path in frames.items():
        with Image.open(path) as image:
            frame = np.asarray(image.convert('RGB'))
        crops = cut(frame, [row['box'] for row in rows[name]])
        inside = [row for row, crop in zip(rows[name], crops, strict=True) if crop.size]
        vectors = extractor([crop for crop in crops if crop.size])
        for row, number in zip(inside, tracker.update(vectors), strict=True):
            row['track'] = number
        outside += len(rows[name]) - len(inside)
        rows[name] = inside
    done = [row for some in rows.values() for row in some]
    with open(args.out, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, ['frame', 'x', 'y', 'w', 'h', 'track'], extrasaction='ignore')
        writer.writeheader()
        writer.writerows(done)
    print(f'{len(done)} detections in {len(frames)} frames, {tracker.started} tracks: {args.out}')
    if outside:
        print(f'{outside} boxes are outside of their frame and were left out', file=sys.stderr)
    if done and 'vehicle' in done[0]:
        print(count_links(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', metavar='FOLDER', help='images')
    parser.add_argument('--boxes', metavar='FILE', help='table of boxes, .csv')
    parser.add_argument('--demo', metavar='FOLDER', help='draw a sequence here, unless there is one, and track it')
    parser.add_argument('--model', default='dpa_resnet50', help='a name, or the folder of a run (default %(default)s)')
    parser.add_argument('--min-similarity', type=float, default=0.5, metavar='COSINE', help='default %(default)s')
    parser.add_argument('--out', metavar='FILE', help='table to write, default tracks.csv')
    args = parser.parse_args()
    if args.demo:
        args.frames, args.boxes = f'{args.demo}/frames', f'{args.demo}/boxes.csv'
    elif not (args.frames and args.boxes):
        parser.error('give --frames and --boxes, or --demo')
    args.out = args.out or str(Path(args.demo or '.', 'tracks.csv'))
    try:
        if args.demo and not Path(args.boxes).exists():
            draw_sequence(Path(args.demo))
        run(args)
    except (ValueError, OSError, RuntimeError, csv.Error) as error:
        print(f'tracker.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
