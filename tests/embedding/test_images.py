"""Decoding, compared with pixels computed by hand."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.pictures import HEIGHT, WIDTH, as_file, load
from timm_dpa.embedding.images import (
    ImageError,
    find_images,
)


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def in_three(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha[..., None] / 255
    return rgb * alpha + 255 * (1 - alpha)


def write_png(path: Path, values: np.ndarray) -> Path:
    """A 16-bit RGB PNG, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    height, width, _ = values.shape
    lines = b''.join(b'\0' + line.astype('>u2').tobytes() for line in values)
    header = struct.pack('>IIBBBBB', width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(lines)) + chunk(b'IEND', b'')
    )
    return path


class TestModes:
    def test_rgb(self, tmp_path, rgb):
        assert (load(as_file(Image.fromarray(rgb), tmp_path / 'a.png')) == rgb).all()

    def test_grey(self, tmp_path, grey):
        assert (load(as_file(Image.fromarray(grey), tmp_path / 'a.png')) == in_three(grey)).all()

    def test_black_and_white(self, tmp_path, grey):
        bits = grey > 127
        path = as_file(Image.fromarray(bits), tmp_path / 'a.png')
        assert (load(path) == in_three(np.where(bits, 255, 0))).all()

    def test_grey_with_alpha(self, tmp_path, grey, rng):
        alpha = rng.integers(0, 256, grey.shape, dtype=np.uint8)
        image = Image.merge('LA', [Image.fromarray(grey), Image.fromarray(alpha)])
        path = as_file(image, tmp_path / 'a.png')
        assert np.abs(load(path) - over_white(in_three(grey), alpha)).max() <= 1

    def test_alpha_is_over_white(self, tmp_path, rgb, rng):
        alpha = rng.integers(0, 256, rgb.shape[:2], dtype=np.uint8)
        alpha[0] = 0
        alpha[1] = 255
        path = as_file(Image.fromarray(np.dstack([rgb, alpha])), tmp_path / 'a.png')
        loaded = load(path)
        assert (loaded[0] == 255).all()
        assert (loaded[1] == rgb[1]).all()
        assert np.abs(loaded - over_white(rgb, alpha)).max() <= 1

    def test_palette(self, tmp_path, rng):
        colours, indices = rng.integers(0, 256, (4, 3), dtype=np.uint8), rng.integers(0, 4, (HEIGHT, WIDTH))
        image = Image.fromarray(indices.astype(np.uint8)).convert('P')
        image.putpalette(colours.tobytes())
        assert (load(as_file(image, tmp_path / 'a.png')) == colours[indices]).all()

    @pytest.mark.parametrize('transparency', [2, bytes([255, 0, 128, 255])])
    def test_palette_with_transparency(self, tmp_path, rng, transparency):
        colours, indices = rng.integers(0, 256, (4, 3), dtype=np.uint8), rng.integers(0, 4, (HEIGHT, WIDTH))
        image = Image.fromarray(indices.astype(np.uint8)).convert('P')
        image.putpalette(colours.tobytes())
        path = as_file(image, tmp_path / 'a.png', transparency=transparency)
        alphas = np.array(list(transparency) if isinstance(transparency, bytes) else [255, 255, 0, 255])
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert np.abs(load(path) - over_white(colours[indices], alphas[indices])).max() <= 1

    def test_palette_with_alpha(self, rng):
        colours, indices = rng.integers(0, 256, (4, 3), dtype=np.uint8), rng.integers(0, 4, (HEIGHT, WIDTH))
        alpha = rng.integers(0, 256, indices.shape, dtype=np.uint8)
        image = Image.fromarray(np.dstack([indices.astype(np.uint8), alpha]), 'LA')
        palette = Image.new('PA', image.size)
        palette.putpalette(colours.tobytes())
        for x in range(WIDTH):
            for y in range(HEIGHT):
                palette.putpixel((x, y), (int(indices[y, x]), int(alpha[y, x])))
        assert palette.mode == 'PA'
        assert np.abs(load(palette) - over_white(colours[indices], alpha)).max() <= 1

    def test_cmyk(self, tmp_path, rng):
        values = rng.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
        path = as_file(Image.fromarray(values, 'CMYK'), tmp_path / 'a.tif')
        ink, black = values[..., :3].astype(float), values[..., 3:].astype(float)
        assert np.abs(load(path) - (255 - ink) * (255 - black) / 255).max() <= 1.01

    def test_cmyk_jpeg_is_not_inverted(self, tmp_path):
        path = as_file(Image.new('CMYK', (16, 16), (0, 255, 255, 0)), tmp_path / 'red.jpg', quality=100)
        assert np.abs(load(path).astype(int) - (255, 0, 0)).max() <= 3

    def test_ycbcr(self, rng):
        values = rng.integers(64, 192, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        y, cb, cr = (values[..., i].astype(float) for i in range(3))
        cb, cr = cb - 128, cr - 128
        expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
        loaded = load(Image.fromarray(values, 'YCbCr'))
        assert np.abs(loaded - expected.clip(0, 255)).max() <= 1.5

    @pytest.mark.parametrize('suffix', ['.png', '.tif'])
    def test_16_bit_grey_is_scaled(self, tmp_path, rng, suffix):
        values = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
        path = as_file(Image.fromarray(values), tmp_path / f'a{suffix}')
        assert np.abs(load(path) - in_three(values / 257)).max() <= 0.51

    def test_16_bit_big_endian(self, tmp_path, rng):
        values = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
        image = Image.frombytes('I;16B', (WIDTH, HEIGHT), values.astype('>u2').tobytes())
        assert np.abs(load(as_file(image, tmp_path / 'a.tif')) - in_three(values / 257)).max() <= 0.51

    def test_16_bit_colour(self, tmp_path, rng):
        values = rng.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
        assert np.abs(load(write_png(tmp_path / 'a.png', values)) - values / 257).max() <= 1

    def test_32_bit_integers(self, tmp_path, rng):
        values = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.int32)
        assert np.abs(load(as_file(Image.fromarray(values), tmp_path / 'a.tif')) - in_three(values / 257)).max() <= 0.51
        with pytest.raises(ImageError, match=r'b\.tif.*16-bit'):
            load(as_file(Image.fromarray(values * 1000), tmp_path / 'b.tif'))

    def test_float(self, tmp_path, rng):
        values = rng.random((HEIGHT, WIDTH), dtype=np.float32)
        path = as_file(Image.fromarray(values), tmp_path / 'a.tif')
        assert np.abs(load(path) - in_three(values * 255)).max() <= 0.51

    def test_animation_gives_its_first_frame(self, tmp_path):
        frames = [Image.new('RGB', (8, 6), colour) for colour in ('red', 'lime', 'blue')]
        frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
        assert (load(tmp_path / 'a.gif') == (255, 0, 0)).all()

    @pytest.mark.parametrize('suffix', ['.jpg', '.webp', '.bmp', '.ppm', '.tiff', '.avif', '.jp2'])
    def test_formats(self, tmp_path, suffix):
        path = tmp_path / f'a{suffix}'
        try:
            Image.new('RGB', (32, 16), (200, 100, 50)).save(path, quality=95)
        except (KeyError, OSError):
            pytest.skip(f'this Pillow writes no {suffix}')
        assert find_images(tmp_path) == [path]
        assert np.abs(load(path).astype(int) - (200, 100, 50)).max() <= 4


class TestOrientation:
    #: from stored to upright pixels
    UPRIGHT = {  # noqa: RUF012
        1: lambda stored: stored,
        2: lambda stored: stored[:, ::-1],
        3: lambda stored: stored[::-1, ::-1],
        4: lambda stored: stored[::-1],
        5: lambda stored: stored.transpose(1, 0, 2),
        6: lambda stored: stored[::-1].transpose(1, 0, 2),
        7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
        8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),
    }

    @staticmethod
    def exif(orientation: int) -> Image.Exif:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return exif

    @pytest.mark.parametrize('orientation', range(1, 9))
    def test_exif(self, tmp_path, rgb, orientation):
        Image.fromarray(rgb).save(tmp_path / 'a.png', exif=self.exif(orientation))
        assert (load(tmp_path / 'a.png') == self.UPRIGHT[orientation](rgb)).all()

    def test_jpeg_held_upright(self, tmp_path):
        stored = np.zeros((32, 64, 3), np.uint8)
        stored[:, :32] = 255  # the left half becomes the upper one when turned clockwise
        Image.fromarray(stored).save(tmp_path / 'a.jpg', exif=self.exif(6))
        loaded = load(tmp_path / 'a.jpg')
        assert loaded.shape == (64, 32, 3)
        assert loaded[:28].min() > 240
        assert loaded[36:].max() < 15

    def test_16_bit_and_alpha_are_turned(self, tmp_path, rng):
        deep = rng.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / 'a.png', exif=self.exif(3))
        assert np.abs(load(tmp_path / 'a.png') - in_three(deep[::-1, ::-1] / 257)).max() <= 0.51
        clear = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        clear[0] = (10, 20, 30, 255)
        Image.fromarray(clear).save(tmp_path / 'b.png', exif=self.exif(4))
        assert (load(tmp_path / 'b.png')[-1] == (10, 20, 30)).all()

    @pytest.mark.filterwarnings('ignore:Corrupt EXIF')
    @pytest.mark.parametrize(
        'exif', [b'Exif\0\0garbage', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0MM\0*\0\0\0\x08\xff']
    )
    def test_damaged_exif_is_no_reason_to_fail(self, tmp_path, exif):
        path = tmp_path / 'a.jpg'
        Image.new('RGB', (16, 16), 'red').save(path)
        data = path.read_bytes()
        path.write_bytes(data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:])
        assert np.abs(load(path).astype(int) - (254, 0, 0)).max() <= 2

    def test_an_image_of_the_caller_is_not_changed(self, rgb):
        image = Image.fromarray(rgb)
        image.getexif()[0x0112] = 6
        assert load(image).shape == (WIDTH, HEIGHT, 3)
        assert image.size == (WIDTH, HEIGHT)
        assert image.getexif()[0x0112] == 6


class TestArrays:
    def test_uint8(self, rgb):
        assert (load(rgb) == rgb).all()
        assert (load(rgb[::-1, ::2]) == rgb[::-1, ::2]).all()  # not contiguous

    @pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
    def test_float(self, rgb, dtype):
        assert (load((rgb / 255).astype(dtype)) == rgb).all()

    def test_what_resampling_leaves_over_1_is_cut_off(self, rgb):
        values = rgb / 255
        values[0, 0], values[0, 1] = 1.008, -0.008
        loaded = load(values)
        assert (loaded[0, 0] == 255).all()
        assert (loaded[0, 1] == 0).all()

    def test_bool(self, grey):
        assert (load(grey > 99) == in_three(np.where(grey > 99, 255, 0))).all()

    def test_uint16(self, rng):
        values = rng.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
        assert np.abs(load(values) - values / 257).max() <= 0.51

    def test_grey(self, grey):
        assert (load(grey) == in_three(grey)).all()
        assert (load(grey[..., None]) == in_three(grey)).all()

    def test_alpha(self, rgb, rng):
        alpha = rng.integers(0, 256, rgb.shape[:2], dtype=np.uint8)
        assert np.abs(load(np.dstack([rgb, alpha])) - over_white(rgb, alpha)).max() <= 1

    @pytest.mark.parametrize(
        ('array', 'reason'),
        [
            (np.full((4, 4, 3), np.nan), 'NaN'),
            (np.full((4, 4), np.inf, np.float32), 'infinite'),
            (np.full((4, 4, 3), 200.0), 'uint8'),
            (np.full((4, 4, 3), -0.5), 'uint8'),
            (np.zeros((4, 4, 3), np.int64), 'int64'),
            (np.zeros((4, 4, 3), complex), 'complex'),
            (np.zeros((3, 4, 5), np.uint8), 'channels come last'),
            (np.zeros((4, 5, 2), np.uint8), 'channels'),
            (np.zeros((0, 4, 3), np.uint8), 'no pixels'),
            (np.zeros((4, 0), np.uint8), 'no pixels'),
            (np.zeros(7), 'shape'),
            (np.zeros((2, 2, 4, 4, 3), np.uint8), 'shape'),
        ],
    )
    def test_wrong_arrays_are_named(self, array, reason):
        with pytest.raises(ImageError, match=f'image 3: .*{reason}'):
            load(array)


class TestTensors:
    def test_channels_come_first(self, rgb):
        assert (load(torch.from_numpy(rgb).permute(2, 0, 1)) == rgb).all()

    @pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
    def test_float(self, rgb, dtype):
        assert (load((torch.from_numpy(rgb).permute(2, 0, 1) / 255).to(dtype)) == rgb).all()

    def test_bfloat16(self, rgb):
        loaded = load((torch.from_numpy(rgb).permute(2, 0, 1) / 255).bfloat16())
        assert np.abs(loaded.astype(int) - rgb).max() <= 1

    def test_grey(self, grey):
        assert (load(torch.from_numpy(grey)) == in_three(grey)).all()
        assert (load(torch.from_numpy(grey)[None]) == in_three(grey)).all()

    def test_with_gradient(self, rgb):
        tensor = (torch.from_numpy(rgb).permute(2, 0, 1) / 255).requires_grad_()
        assert (load(tensor) == rgb).all()

    def test_wrong_tensors_are_named(self, rgb):
        with pytest.raises(ImageError, match=r'image 3: .*C x H x W'):
            load(torch.from_numpy(rgb))
        with pytest.raises(ImageError, match=r'image 3: .*NaN'):
            load(torch.full((3, 4, 4), torch.nan))
