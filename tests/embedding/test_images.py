"""Decoding, compared with pixels computed by hand."""

import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from timm_dpa.embedding.images import (
    Decoding,
    ImageError,
    ImageItem,
    find_images,
    image_suffixes,
    iter_images,
    load_rgb,
    scan_folder,
)

HEIGHT, WIDTH = 5, 7


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def load(source) -> np.ndarray:
    image = load_rgb(ImageItem(source, str(source) if isinstance(source, (str, Path)) else 'image 3'))
    assert image.mode == 'RGB'
    return np.asarray(image)


def in_three(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha[..., None] / 255
    return rgb * alpha + 255 * (1 - alpha)


def as_file(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    with Image.open(path) as written:
        assert written.mode == image.mode
    return path


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


class TestDamage:
    @pytest.fixture
    def jpeg(self, rng):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, 'JPEG')
        return buffer.getvalue()

    @pytest.mark.parametrize('content', [b'', b'this is text', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'])
    def test_no_image(self, tmp_path, content):
        path = tmp_path / 'a.jpg'
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r'a\.jpg: '):
            load(path)

    @pytest.mark.parametrize('share', [0.3, 0.9])
    def test_truncated(self, tmp_path, jpeg, share):
        path = tmp_path / 'cut.jpg'
        path.write_bytes(jpeg[: int(len(jpeg) * share)])
        with pytest.raises(ImageError, match=r'cut\.jpg: '):
            load(path)

    @pytest.mark.parametrize('suffix', ['.png', '.tif', '.gif', '.webp', '.bmp', '.jp2', '.jpg'])
    def test_random_damage_gives_an_image_or_an_error_that_names_it(self, tmp_path, rng, suffix):
        path = tmp_path / f'a{suffix}'
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
        original = np.frombuffer(path.read_bytes(), np.uint8)
        errors = []
        for _ in range(60):
            damaged = original.copy()
            damaged[rng.integers(0, min(len(damaged), 120), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(damaged.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                try:
                    load(path)
                except ImageError as error:
                    errors.append(str(error))
        assert all(error.startswith(str(path)) for error in errors)

    def test_truncated_and_turned(self, tmp_path, rng):
        """What is cut off must not be hidden by what is done about damaged EXIF."""
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / 'cut.jpg'
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, exif=exif)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(ImageError, match=r'cut\.jpg: '):
            load(path)

    def test_vanished(self, tmp_path):
        with pytest.raises(ImageError, match=r'gone\.jpg: .*No such file'):
            load(tmp_path / 'gone.jpg')

    def test_no_pixels(self):
        with pytest.raises(ImageError, match=r'image 3: .*no pixels'):
            load(Image.new('RGB', (0, 4)))

    def test_the_file_is_closed(self, tmp_path, rgb):
        as_file(Image.fromarray(rgb), tmp_path / 'a.png')
        (tmp_path / 'b.png').write_bytes(b'no')
        with warnings.catch_warnings():
            warnings.simplefilter('error', ResourceWarning)
            load(tmp_path / 'a.png')
            with pytest.raises(ImageError):
                load(tmp_path / 'b.png')

    def test_one_opened_image_in_many_threads(self, tmp_path, rng):
        values = rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)
        as_file(Image.fromarray(values), tmp_path / 'a.png')
        for _ in range(5):
            barrier = threading.Barrier(4)
            with Image.open(tmp_path / 'a.png') as image, ThreadPoolExecutor(4) as pool:

                def task(_, image=image, barrier=barrier):
                    barrier.wait()
                    return load(image)

                assert all((loaded == values).all() for loaded in pool.map(task, range(4)))


class TestFolders:
    def touch(self, *paths: Path) -> None:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def test_sorted_below_the_folder_without_what_is_hidden_or_other(self, tmp_path):
        wanted = [tmp_path / name for name in ('a/2.jpg', 'a/b/1.PNG', 'z 9.tif', 'é.webp')]
        self.touch(*wanted, tmp_path / '.hidden.jpg', tmp_path / '.git/x.jpg', tmp_path / 'a/notes.txt')
        assert find_images(tmp_path) == sorted(wanted)
        assert [item.name for item in iter_images(tmp_path)] == [str(path) for path in sorted(wanted)]

    @pytest.mark.parametrize('images', [lambda folder: folder, lambda folder: [str(folder)]])
    def test_empty(self, tmp_path, images):
        self.touch(tmp_path / 'a.txt')
        with pytest.raises(ImageError, match='no image in this folder'):
            list(iter_images(images(tmp_path)))

    def test_links_are_followed_and_circles_end(self, tmp_path):
        self.touch(tmp_path / 'data/crops/1.jpg')
        (tmp_path / 'data/crops/circle').symlink_to(tmp_path / 'data')
        (tmp_path / 'set').mkdir()
        (tmp_path / 'set/linked').symlink_to(tmp_path / 'data/crops')
        assert find_images(tmp_path / 'set') == [tmp_path / 'set/linked/1.jpg']
        (tmp_path / 'data/crops/itself').symlink_to(tmp_path / 'data/crops')
        assert find_images(tmp_path / 'data/crops') == [tmp_path / 'data/crops/1.jpg']

    def test_what_is_left_out_is_counted_and_said(self, tmp_path, caplog):
        names = ['a.jpg', 'a.txt', 'b/B.TXT', 'b/noext', 'c.heix', '.ds_store', '.b.jpg']
        hidden = ['@eaDir/a.jpg/x.jpg', 'b/@eaDir/y.jpg', '.thumbnails/z.png', '__MACOSX/b/q.jpg', '.git/objects/1.jpg']
        self.touch(*(tmp_path / name for name in names + hidden))
        content = scan_folder(tmp_path)
        assert content.images == [tmp_path / 'a.jpg']
        assert content.ignored == {'.txt': 2, 'noext': 1, '.heix': 1}
        assert content.hidden == {'@eaDir': 2, '.thumbnails': 1, '__MACOSX': 1, '.git': 1}
        assert [item.name for item in iter_images(tmp_path)] == [str(tmp_path / 'a.jpg')]
        (said,) = caplog.messages
        assert said.startswith(f'{tmp_path}: left out 4 files that Pillow cannot open (2 .txt, ')
        assert ' and 5 hidden folders (2 @eaDir, ' in said
        caplog.clear()
        list(iter_images(tmp_path / '@eaDir'))  # it was asked for
        assert caplog.messages == []

    def test_names_that_are_no_utf8(self, tmp_path):
        name = os.fsdecode(b'caf\xe9.jpg')
        try:
            self.touch(tmp_path / name)
        except OSError:
            pytest.skip('this file system wants UTF-8')
        assert [item.name for item in iter_images(tmp_path)] == [str(tmp_path / name)]


class TestSuffixes:
    @pytest.mark.parametrize(
        'name',
        ['jpg', 'jpeg', 'jfif', 'jpe', 'pjpeg', 'pjp', 'mpo', 'png', 'apng', 'tiff', 'webp', 'gif', 'bmp', 'tga'],
    )
    def test_what_pillow_opens(self, tmp_path, name):
        kind = 'JPEG' if name.startswith(('j', 'p')) and name != 'png' else None
        Image.new('RGB', (16, 8), 'red').save(tmp_path / f'a.{name.upper()}', kind)
        assert find_images(tmp_path) == [tmp_path / f'a.{name.upper()}']
        assert load(tmp_path / f'a.{name.upper()}').shape == (8, 16, 3)

    def test_whatever_can_be_written_can_be_found(self):
        """But for formats of documents, which Pillow writes and does not read."""
        Image.init()
        readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        stubs = {'.bufr', '.grib', '.h5', '.hdf', '.wmf', '.emf'}  # of which it reads the header
        assert readable - stubs - {'.eps', '.ps', '.iim', '.mpg', '.mpeg'} <= set(image_suffixes())
        assert not set(image_suffixes()) & (stubs | {'.pdf', '.eps', '.mpg', '.txt', '.csv', '.json', '.mp4'})

    def test_plugins(self, tmp_path):
        """A format that is registered by another package, such as HEIF."""

        class Plain(ImageFile.ImageFile):
            format = 'PLAIN'

            def _open(self):
                self._mode, self._size = 'RGB', (2, 1)
                self.tile = [ImageFile._Tile('raw', (0, 0, 2, 1), 6, ('RGB', 0, 1))]

        (tmp_path / 'a.plain').write_bytes(b'PLAIN!' + bytes([255, 0, 0, 0, 0, 255]))
        image_suffixes.cache_clear()
        try:
            Image.register_open('PLAIN', Plain, lambda prefix: prefix.startswith(b'PLAIN!'))
            Image.register_extension('PLAIN', '.plain')
            assert find_images(tmp_path) == [tmp_path / 'a.plain']
            assert load(tmp_path / 'a.plain').tolist() == [[[255, 0, 0], [0, 0, 255]]]
        finally:
            Image.ID.remove('PLAIN')
            del Image.OPEN['PLAIN'], Image.EXTENSION['.plain']
            image_suffixes.cache_clear()
        with pytest.raises(ImageError, match=r'1 file that Pillow cannot open \(1 \.plain\)'):
            find_images(tmp_path)

    def test_heif(self, tmp_path):
        pillow_heif = pytest.importorskip('pillow_heif')
        pillow_heif.from_pillow(Image.new('RGB', (64, 64), (200, 100, 50))).save(tmp_path / 'a.HEIC')
        assert find_images(tmp_path) == [tmp_path / 'a.HEIC']
        assert np.abs(load(tmp_path / 'a.HEIC').astype(int) - (200, 100, 50)).max() <= 6


class TestDecoding:
    """Files that are damaged, or made to fill the memory."""

    @pytest.fixture
    def picture(self, rng):
        small = Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))
        return small.resize((192, 128), Image.Resampling.BICUBIC)

    @pytest.mark.parametrize('progressive', [False, True])
    @pytest.mark.parametrize('missing', [1, 2, 40])
    def test_jpeg_without_its_last_bytes(self, tmp_path, picture, caplog, progressive, missing):
        whole = as_file(picture, tmp_path / 'a.jpg', quality=95, progressive=progressive)
        expected = load(whole).astype(int)
        cut = tmp_path / 'cut.jpg'
        cut.write_bytes(whole.read_bytes()[:-missing])
        with pytest.raises(ImageError, match=r'cut\.jpg: cannot be read'):
            load(cut)
        for source in (cut, io.BytesIO(cut.read_bytes())):
            caplog.clear()
            loaded = np.asarray(load_rgb(ImageItem(source, 'cut.jpg'), Decoding(truncated=True))).astype(int)
            assert (np.abs(loaded - expected).max(axis=-1) > 24).mean() < 0.1
            assert caplog.messages == ['cut.jpg: its end is missing; the pixels that are not there are gray']

    def test_half_of_a_jpeg(self, tmp_path, picture):
        whole = as_file(picture, tmp_path / 'a.jpg', quality=95)
        (tmp_path / 'cut.jpg').write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        loaded = np.asarray(load_rgb(ImageItem(tmp_path / 'cut.jpg', 'a'), Decoding(truncated=True))).astype(int)
        assert (loaded[:40] == load(whole)[:40]).all()
        assert np.ptp(loaded[-20:]) <= 8  # one gray

    @pytest.mark.parametrize('content', [b'', b'text', b'\xff\xd8', b'\xff\xd8\xff\xe0\0', b'\x89PNG\r\n\x1a\n\0'])
    def test_what_is_no_image_is_none_with_any_options(self, tmp_path, content):
        (tmp_path / 'a.jpg').write_bytes(content)
        with pytest.raises(ImageError, match=r'a\.jpg: '):
            load_rgb(ImageItem(tmp_path / 'a.jpg', 'a.jpg'), Decoding(truncated=True, max_pixels=10**9))

    @pytest.mark.parametrize('kind', ['png', 'jpg', 'tif', 'webp'])
    def test_max_pixels(self, tmp_path, picture, kind):
        item = ImageItem(tmp_path / f'a.{kind}', 'a')
        picture.save(item.source)
        assert load_rgb(item, Decoding(max_pixels=192 * 128)).size == (192, 128)
        with pytest.raises(ImageError, match=r'192 x 128 pixels are more than max_pixels=24575'):
            load_rgb(item, Decoding(max_pixels=192 * 128 - 1))

    @pytest.mark.filterwarnings('ignore:Image size')
    def test_the_limit_of_pillow_holds_unless_another_is_given(self, tmp_path, picture, monkeypatch):
        picture.save(tmp_path / 'a.png')
        item = ImageItem(tmp_path / 'a.png', 'a.png')
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
        with pytest.raises(ImageError, match=r'a\.png: .*exceeds limit of 2000 pixels'):
            load_rgb(item)
        with pytest.raises(ImageError, match='max_pixels=24000'):
            load_rgb(item, Decoding(max_pixels=24000))
        assert load_rgb(item, Decoding(max_pixels=30000)).size == (192, 128)
        assert Image.MAX_IMAGE_PIXELS == 1000
        with pytest.raises(ImageError, match='exceeds limit'):
            load_rgb(item)

    def test_wrong_limit(self):
        with pytest.raises(ValueError, match='max_pixels must be at least 1, not 0'):
            Decoding(max_pixels=0)

    @pytest.mark.parametrize('kind', ['zip', 'itxt', 'plain', 'profile'])
    def test_long_texts_in_a_png(self, tmp_path, rgb, kind):
        """Of programs that keep their settings in the image; Pillow refuses what is longer than 1 MB."""
        info, options = PngImagePlugin.PngInfo(), {}
        if kind == 'profile':
            options['icc_profile'] = bytes(3_000_000)
        elif kind == 'itxt':
            info.add_itxt('prompt', 'x' * 3_000_000, zip=True)
        else:
            for part in range(24):
                info.add_text(f'part {part}', 'x' * 3_000_000, zip=kind == 'zip')
        exif = TestOrientation.exif(3)
        Image.fromarray(rgb).save(tmp_path / 'a.png', pnginfo=info, exif=exif, **options)
        with pytest.raises(ValueError, match=r'too large|Too much'), Image.open(tmp_path / 'a.png') as image:
            image.load()
        assert (load(tmp_path / 'a.png') == rgb[::-1, ::-1]).all()


class TestIterImages:
    def test_a_named_file_may_be_called_anything(self, tmp_path, rgb):
        path = tmp_path / 'ünï cödé name'
        Image.fromarray(rgb).save(path, 'PNG')
        (item,) = iter_images(path)
        assert item.name == str(path)
        assert (np.asarray(load_rgb(item)) == rgb).all()

    def test_missing(self):
        with pytest.raises(FileNotFoundError, match=r'^no/such\.jpg: no such file or folder$'):
            list(iter_images('no/such.jpg'))

    @pytest.mark.parametrize(
        'image', [np.zeros((4, 4, 3)), torch.zeros(3, 4, 4), Image.new('L', (4, 4)), np.zeros((4, 4))]
    )
    def test_a_single_one(self, image):
        assert [item.name for item in iter_images(image)] == ['image 0']

    def test_batches(self, rng):
        arrays = rng.integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
        items = list(iter_images(arrays))
        assert [item.name for item in items] == ['image 0', 'image 1', 'image 2']
        for item, array in zip(items, arrays, strict=True):
            assert (np.asarray(load_rgb(item)) == array).all()
        tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
        for item, array in zip(iter_images(tensors), arrays, strict=True):
            assert (np.asarray(load_rgb(item)) == array).all()
        mixed = list(iter_images([Image.new('L', (3, 3)), tensors]))
        assert [item.name for item in mixed] == ['image 0', 'image 1[0]', 'image 1[1]', 'image 1[2]']
        assert list(iter_images(arrays[:0])) == []

    def test_what_may_be_one_of_several_is_left_to_decoding(self, tmp_path):
        """What a detector or a list of paths gives, besides images."""
        (tmp_path / 'link.jpg').symlink_to('nowhere')
        empty = np.zeros((0, 4, 3), np.uint8)
        given = [None, empty, torch.zeros(3, 0, 4), Image.new('RGB', (0, 0)), tmp_path / 'link.jpg', 'gone.jpg']
        items = list(iter_images(given, on_error='report'))
        assert [item.name for item in items] == [
            *(f'image {k}' for k in range(4)),
            str(tmp_path / 'link.jpg'),
            'gone.jpg',
        ]
        for item in items:
            with pytest.raises(ImageError, match=f'^{item.name}: '):
                load_rgb(item)
        with pytest.raises(ValueError, match="'raise' or 'report', not 'ignore'"):
            list(iter_images(given, on_error='ignore'))

    def test_an_array_of_paths(self, tmp_path):
        for name in 'ab':
            Image.new('L', (3, 3)).save(tmp_path / f'{name}.png')
        paths = [str(tmp_path / 'b.png'), str(tmp_path / 'a.png')]
        assert [item.name for item in iter_images(np.array(paths))] == paths
        assert [item.name for item in iter_images(np.array(paths, object))] == paths

    @pytest.mark.parametrize('images', [None, 3, {'a': 1}, b'a.jpg', io.BytesIO(b'x'), [[np.zeros((4, 4, 3))]], [3]])
    def test_what_is_no_image_is_a_type_error(self, images):
        with pytest.raises(TypeError, match='image'):
            list(iter_images(images))
