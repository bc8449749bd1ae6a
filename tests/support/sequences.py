"""Tiny drawn sequences: vehicles of noise that move over a gray ground, as frames, boxes and videos."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (96, 64)  # width, height of a frame
SIDES = (16, 12)  # of a vehicle


def texture(track: int) -> np.ndarray:
    """`(12, 16, 3)` uint8: what a vehicle looks like, blocks of color that survive compression."""
    blocks = np.random.default_rng(track).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((4, 4, 1), np.uint8))


def place(track: int, frame: int) -> tuple[int, int]:
    """Left and upper edge."""
    return (4 + 20 * (track % 4) + frame % 4, 4 + 18 * (track // 4) + frame % 3)


def draw(frame: int, tracks) -> np.ndarray:
    """`(64, 96, 3)` uint8 RGB, with a little noise, so that no two crops are copies."""
    tracks = list(tracks)
    pixels = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
    for track in tracks:
        x, y = place(track, frame)
        pixels[y : y + SIDES[1], x : x + SIDES[0]] = texture(track)
    noise = np.random.default_rng([frame, *tracks]).integers(-3, 4, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def boxes(frames, tracks) -> list[tuple[int, int, int, int, int, int]]:
    """Rows frame, track, x, y, w, h, track by track, as MOTChallenge has them."""
    return [(frame, track, *place(track, frame), *SIDES) for track in tracks for frame in frames]


def write_rows(path: Path, rows, *more, header: str = '', separator: str = ',') -> Path:
    """A file of boxes; `more` are constant columns behind the others."""
    lines = [header] * bool(header) + [separator.join(map(str, (*row, *more))) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')
    return path


def write_frames(folder: Path, frames, tracks, name: str = '{:06d}.png') -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        Image.fromarray(draw(frame, tracks)).save(folder / name.format(frame))
    return folder


def write_video(path: Path, frames, tracks, rate: int = 10, quarter_turns: int = 0) -> Path:
    """An MP4 file; with a quarter turn its header says that it has to be turned clockwise to be upright."""
    import av

    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=rate, options={'q:v': '2'})
        stream.width, stream.height = SIZE if quarter_turns % 2 == 0 else SIZE[::-1]
        stream.pix_fmt = 'yuv420p'
        stream.bit_rate = 4_000_000
        for frame in frames:
            pixels = np.rot90(draw(frame, tracks), quarter_turns)  # counterclockwise
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), 'rgb24')))
        container.mux(stream.encode())
    if quarter_turns:
        content = bytearray(path.read_bytes())
        start = content.find(b'tkhd') + 44  # version 0 of ISO/IEC 14496-12, 8.3.2
        cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter_turns % 4]
        matrix = [cos << 16, sin << 16, 0, -(sin << 16), cos << 16, 0, 0, 0, 1 << 30]
        content[start : start + 36] = struct.pack('>9i', *matrix)
        path.write_bytes(content)
    return path
