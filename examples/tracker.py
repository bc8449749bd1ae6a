"""Track vehicles by what they look like: embed_frames gives the vectors of the boxes of each frame.

Needs `pip install timm-dpa`, and the boxes of a detector; or draws a sequence of its own:

    python examples/tracker.py --frames frames/ --boxes det.txt --out tracks.txt --picture tracks.png
    python examples/tracker.py --demo sequence/ --model runs/dpa --min-similarity 0.6

The boxes are rows of MOTChallenge (.txt: number of the frame from 1, vehicle or -1, x, y, w, h, score), or a table
(.csv) with the columns frame (file name of an image), x, y, w, h; x and y are the upper left corner, in pixels. Images
are in the order of time by their names. Boxes that are damaged or outside of their frame are left out. With a
column vehicle, or numbers of vehicles, which tell who it really is, right links are counted. Tracks are written the
same way. The sequence of --demo is synthetic, flat drawings: it shows how things work, not how well.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.images import ImageItem, find_images, load_rgb
from timm_dpa.train.data.toy_vehicles import draw_car, park

FALSE_MATCHES = 0.01  # share of the pairs of different vehicles that pass as one, for the default of --min-similarity
MOT = ['frame', 'vehicle', 'x', 'y', 'w', 'h', 'score']


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `(M, 4)` and `(N, 4)`: `(M, N)`."""
    first, second = first[:, None], second[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    both = np.maximum(sides, 0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)


class Tracker:
    """Links the detections of each frame to the vehicles seen before.

    A track is the mean of the unit vectors of its vehicle, compared by cosine. Greedy: the best pair is linked, then
    the best of the others, none below `min_similarity`, which is the number to set for a model; what is left over
    starts a track. Where boxes are given, those that overlap with the
    box of a track in the frame before may look less alike, by up to `overlap`. A track last seen more than `patience`
    frames ago is forgotten.
    """

    def __init__(self, min_similarity: float, patience: int = 100, overlap: float = 0.4) -> None:
        self.min_similarity, self.patience, self.overlap = min_similarity, patience, overlap
        self.sums: dict[int, np.ndarray] = {}  # of the vectors, by track
        self.seen: dict[int, tuple[int, np.ndarray]] = {}  # last frame, and the box in it
        self.frame = self.started = 0

    def update(self, vectors: np.ndarray, boxes: np.ndarray | None = None) -> list[int]:
        """Tracks of the detections of the next frame, from 1; vectors are `(N, D)` of unit length, N may be 0; boxes
        `(N, 4)` x1, y1, x2, y2."""
        self.frame += 1
        boxes = np.zeros((len(vectors), 4)) if boxes is None else boxes
        for number in [i for i, (frame, _) in self.seen.items() if self.frame - frame > self.patience]:
            del self.sums[number], self.seen[number]
        numbers, known = [0] * len(vectors), list(self.sums)
        if numbers and known:
            sums = np.stack(list(self.sums.values()))
            score = sums @ vectors.T / np.linalg.norm(sums, axis=1, keepdims=True)
            before = np.array([self.seen[i][0] == self.frame - 1 for i in known])
            score[before] += self.overlap * overlaps(np.stack([self.seen[i][1] for i in known])[before], boxes)
            score[score < self.min_similarity] = -np.inf
            while score.max() > -np.inf:
                row, column = np.unravel_index(score.argmax(), score.shape)
                numbers[column] = known[row]
                score[row], score[:, column] = -np.inf, -np.inf
        for k, vector in enumerate(vectors):
            if not numbers[k]:
                numbers[k] = self.started = self.started + 1
            self.sums[numbers[k]] = self.sums.get(numbers[k], 0) + vector
            self.seen[numbers[k]] = self.frame, boxes[k]
        return numbers


def read_boxes(path: str, frames: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the file by frame, each with its edges as `box`, NaN where its numbers are."""
    rows: dict[str, list[dict[str, Any]]] = {frame: [] for frame in frames}
    text = path.lower().endswith('.txt')
    with open(path, newline='', encoding='utf-8-sig') as file:
        table = csv.DictReader(file, fieldnames=MOT if text else None)
        missing = [column for column in ('frame', 'x', 'y', 'w', 'h') if column not in (table.fieldnames or ())]
        if missing:
            raise ValueError(f'{path}: no column {", ".join(missing)}; it needs frame,x,y,w,h')
        row: dict[str, Any]
        for row in table:
            try:
                x, y, w, h = (float(row[column]) for column in 'xywh')
                if text:
                    number = int(float(row['frame']))
                    row['frame'] = frames[number - 1] if 1 <= number <= len(frames) else f'number {number}'
            except (TypeError, ValueError):
                raise ValueError(f'{path}, line {table.line_num}: frame,x,y,w,h must be numbers') from None
            if row['frame'] not in rows:
                raise ValueError(f'{path}, line {table.line_num}: there is no frame {row["frame"]}')
            if row.get('vehicle') == '-1':
                del row['vehicle']  # a detector does not know
            row['box'] = [x, y, x + w, y + h]
            rows[row['frame']].append(row)
    return rows


def write_tracks(path: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Rows of MOTChallenge for .txt, else the table with a column `track`."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        if path.lower().endswith('.txt'):
            for time, some in enumerate(rows.values(), start=1):
                for row in some:
                    numbers = ','.join(f'{float(row[column]):g}' for column in 'xywh')
                    file.write(f'{time},{row["track"]},{numbers},{row.get("score") or 1},-1,-1,-1\n')
            return
        writer = csv.DictWriter(file, ['frame', 'x', 'y', 'w', 'h', 'track'], extrasaction='ignore')
        writer.writeheader()
        for some in rows.values():
            writer.writerows(some)


def draw_tracks(path: str, frames: dict[str, Path], rows: dict[str, list[dict[str, Any]]]) -> None:
    """Frames with boxes in the color of their track and its number: a GIF or WebP of all of them, else of six."""
    moving = path.lower().endswith(('.gif', '.webp'))
    names = list(frames) if moving else [list(frames)[k] for k in np.linspace(0, len(frames) - 1, 6).astype(int)]
    pictures = []
    for name in names:
        picture = load_rgb(ImageItem(frames[name], name))
        pen = ImageDraw.Draw(picture)
        for row in rows[name]:
            color = f'hsl({row["track"] * 137 % 360}, 90%, 60%)'  # the golden angle: neighbors differ
            pen.rectangle(row['box'], outline=color, width=2)
            label = pen.textbbox((row['box'][0], row['box'][1] - 12), f' {row["track"]} ')
            pen.rectangle(label, fill=color)
            pen.text(label[:2], f' {row["track"]} ', fill='black')
        pictures.append(picture)
    if moving:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=200, loop=0)
        return
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    sheet = Image.new('RGB', (2 * width + 4, 3 * height + 8), 'white')
    for k, picture in enumerate(pictures):
        sheet.paste(picture, ((k % 2) * (width + 4), (k // 2) * (height + 4)))
    sheet.save(path)


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
    for path in filter(None, (args.out, args.picture)):
        if not Path(path).absolute().parent.is_dir():
            raise ValueError(f'{Path(path).parent}: no such folder for {Path(path).name}')
    frames = {path.relative_to(args.frames).as_posix(): path for path in find_images(args.frames)}
    rows = read_boxes(args.boxes, list(frames))
    extractor = FeatureExtractor(args.model)
    threshold = args.min_similarity
    if threshold is None:
        known = extractor.thresholds or {}
        if FALSE_MATCHES not in known:
            raise ValueError(f'{args.model}: no threshold is known of these weights; give --min-similarity, 0 to 1')
        threshold = known[FALSE_MATCHES]
    tracker = Tracker(threshold)
    left_out = 0
    pairs = ((path, [row['box'] for row in rows[name]]) for name, path in frames.items())
    for name, (vectors, valid) in zip(frames, extractor.embed_frames(pairs), strict=True):
        left_out += len(valid) - int(valid.sum())
        rows[name] = [row for row, good in zip(rows[name], valid, strict=True) if good]
        boxes = np.array([row['box'] for row in rows[name]]).reshape(-1, 4)
        for row, number in zip(rows[name], tracker.update(vectors[valid], boxes), strict=True):
            row['track'] = number
    done = [row for some in rows.values() for row in some]
    write_tracks(args.out, rows)
    if args.picture:
        draw_tracks(args.picture, frames, rows)
    print(f'{len(done)} detections in {len(frames)} frames, {tracker.started} tracks: {args.out}')
    if left_out:
        print(f'{left_out} boxes are damaged or outside of their frame and were left out', file=sys.stderr)
    if done and all('vehicle' in row for row in done):
        print(count_links(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', metavar='FOLDER', help='images')
    parser.add_argument('--boxes', metavar='FILE', help='boxes, .txt (MOTChallenge) or .csv')
    parser.add_argument('--demo', metavar='FOLDER', help='draw a sequence here, unless there is one, and track it')
    parser.add_argument('--model', default='dpa_resnet50', help='a name, or the folder of a run (default %(default)s)')
    parser.add_argument(
        '--min-similarity',
        type=float,
        metavar='COSINE',
        help=f'of one vehicle; default is what was measured with the weights for {FALSE_MATCHES:.0%}% false matches',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='tracks to write, .txt (MOTChallenge) or .csv, default tracks.csv'
    )
    parser.add_argument('--picture', metavar='FILE', help='draw six frames with their tracks; .gif or .webp draws all')
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
