"""Files of images: damaged ones, limits, and which are found in folders."""

import io
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from tests.support.pictures import as_file, load
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
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(rgb).save(tmp_path / 'a.png', pnginfo=info, exif=exif, **options)
        with pytest.raises(ValueError, match=r'too large|Too much'), Image.open(tmp_path / 'a.png') as image:
            image.load()
        assert (load(tmp_path / 'a.png') == rgb[::-1, ::-1]).all()


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
