"""Embedding to a file: what is in it, how an interrupted run is resumed, and what is left when something goes wrong."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from timm_dpa.embedding import files as files_module
from timm_dpa.embedding.embed import embed_to_file
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.embedding.images import ImageError

SIZE = 64


def make_extractor(seed: int = 1, **kwargs) -> FeatureExtractor:
    torch.manual_seed(seed)
    options = {'precision': 'fp32', 'batch_size': 4, 'image_size': SIZE, 'workers': 2, **kwargs}
    return FeatureExtractor(timm.create_model('dpa_resnet18'), **options)


@pytest.fixture(scope='module')
def shared_extractor():
    return make_extractor()


@pytest.fixture
def extractor(shared_extractor, monkeypatch):
    """It counts what it decodes."""
    decoded = []
    inner = shared_extractor._decode
    monkeypatch.setattr(shared_extractor, '_decode', lambda item: decoded.append(item.name) or inner(item))
    shared_extractor.decoded = decoded
    return shared_extractor


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'crops'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f'{index}.png')
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'crops.safetensors'


def names_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


class Stop(BaseException):
    """As Ctrl-C, which no `except Exception` sees."""


def interrupt_after(extractor, monkeypatch, batches: int, error: type[BaseException] = Stop) -> None:
    inner, count = extractor.embed_pixels, iter(range(1000))

    def embed_pixels(pixels):
        if next(count) == batches:
            raise error
        return inner(pixels)

    monkeypatch.setattr(extractor, 'embed_pixels', embed_pixels)


class TestFile:
    def test_what_is_in_it(self, extractor, folder, out):
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded, report.failures, report.failures_file) == (10, 10, {}, None)
        # read without this package, as the docstring of the module says
        tensors = load_file(out)
        names = json.loads(tensors['names'].tobytes().decode())
        assert names == names_of(folder)
        assert tensors['embeddings'].dtype == np.float32
        np.testing.assert_allclose(tensors['embeddings'], extractor(folder), atol=1e-6)
        status = [os.stat(name) for name in names]
        assert tensors['stamps'].tolist() == [[s.st_size, s.st_mtime_ns] for s in status]
        assert sorted(path.name for path in out.parent.iterdir()) == ['crops', 'crops.safetensors']

    @pytest.mark.parametrize('images', ['list', 'mixed', 'twice'])
    def test_images_may_be_several(self, extractor, folder, out, images):
        names = names_of(folder)
        given = {'list': names, 'mixed': [names[3], folder], 'twice': [folder, folder, names[0]]}[images]
        expected = [names[3], *names[:3], *names[4:]] if images == 'mixed' else names
        embed_to_file(extractor, given, out)
        stored = load_embeddings(out)
        assert stored.names == expected
        np.testing.assert_allclose(stored.vectors, extractor(expected), atol=1e-6)

    def test_other_kinds_of_images_are_refused(self, extractor, out):
        with pytest.raises(TypeError, match='FeatureExtractor'):
            embed_to_file(extractor, [np.zeros((4, 4, 3), np.uint8)], out)
        with pytest.raises(ValueError, match='no images'):
            embed_to_file(extractor, [], out)

    def test_memory_is_little_more_than_the_vectors(self, out, tmp_path, monkeypatch):
        """100,000 images would be 800 MB here."""
        count, width = 4000, 2048

        class Fake:
            embedding_size, origin = width, {}

            def describe(self):
                return {'model': 'fake', 'network_sha256': '0'}

            def stream(self, items, on_error, progress, total):
                from timm_dpa.embedding.extractor import Embeddings

                names = [item.name for item in items]
                for start in range(0, total, 32):
                    some = names[start : start + 32]
                    yield Embeddings(np.full((len(some), width), 1 / width**0.5, np.float32), some)

        many = tmp_path / 'many'
        many.mkdir()
        for index in range(count):
            (many / f'{index:05d}.jpg').touch()
        tracemalloc.start()
        try:
            embed_to_file(Fake(), many, out, save_every=200)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2.2 * count * width * 4
        assert len(load_embeddings(out).names) == count


class TestResumed:
    def test_what_is_known_is_not_computed_again(self, extractor, folder, out):
        embed_to_file(extractor, folder, out)
        before = load_embeddings(out)
        del extractor.decoded[:]
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded) == (10, 0)
        assert extractor.decoded == []
        assert (load_embeddings(out).vectors == before.vectors).all()

    def test_new_images_are_added_in_their_place(self, extractor, folder, out):
        embed_to_file(extractor, folder, out)
        Image.new('RGB', (20, 20), 'red').save(folder / '00.png')
        del extractor.decoded[:]
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded) == (11, 1)
        assert extractor.decoded == [str(folder / '00.png')]
        stored = load_embeddings(out)
        assert stored.names == names_of(folder)
        np.testing.assert_allclose(stored.vectors, extractor(folder), atol=1e-6)

    def test_a_changed_image_is_computed_again(self, extractor, folder, out):
        embed_to_file(extractor, folder, out)
        Image.new('RGB', (20, 20), 'red').save(folder / '4.png')
        del extractor.decoded[:]
        embed_to_file(extractor, folder, out)
        assert extractor.decoded == [str(folder / '4.png')]
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(folder), atol=1e-6)

    @pytest.mark.parametrize('error', [Stop, KeyboardInterrupt, RuntimeError])
    def test_after_an_interruption(self, extractor, folder, out, tmp_path, monkeypatch, error):
        embed_to_file(extractor, folder, tmp_path / 'whole.safetensors')
        with monkeypatch.context() as patch:
            interrupt_after(extractor, patch, 2, error)
            with pytest.raises(error):
                embed_to_file(extractor, folder, out)
        assert not out.exists()
        (part,) = Path(f'{out}.partial').iterdir()
        assert load_embeddings(part).names == names_of(folder)[:8]
        del extractor.decoded[:]
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded) == (10, 2)
        assert extractor.decoded == names_of(folder)[8:]
        assert not Path(f'{out}.partial').exists()
        stored, whole = load_embeddings(out), load_embeddings(tmp_path / 'whole.safetensors')
        assert stored.names == whole.names
        assert stored.metadata == whole.metadata
        assert (stored.stamps == whole.stamps).all()
        np.testing.assert_allclose(stored.vectors, whole.vectors, atol=1e-6)

    def test_interrupted_again_and_again(self, extractor, folder, out, monkeypatch):
        for _ in range(4):
            with monkeypatch.context() as patch:
                interrupt_after(extractor, patch, 1)
                with pytest.raises(Stop):
                    embed_to_file(extractor, folder, out, save_every=2)
            if len(list(Path(f'{out}.partial').iterdir())) == 2:
                break
        # a part in the middle is gone: no other may take its name
        (first, second) = sorted(Path(f'{out}.partial').iterdir())
        kept = load_embeddings(second).names
        first.unlink()
        with monkeypatch.context() as patch:
            interrupt_after(extractor, patch, 1)
            with pytest.raises(Stop):
                embed_to_file(extractor, folder, out)
        assert load_embeddings(second).names == kept
        assert embed_to_file(extractor, folder, out).embedded == 2
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(folder), atol=1e-6)

    def test_an_interruption_before_the_first_batch_leaves_nothing(self, extractor, folder, out, monkeypatch):
        interrupt_after(extractor, monkeypatch, 0)
        with pytest.raises(Stop):
            embed_to_file(extractor, folder, out)
        assert [path.name for path in out.parent.iterdir()] == ['crops']

    def test_an_addition_that_is_interrupted_keeps_the_file(self, extractor, folder, out, monkeypatch):
        embed_to_file(extractor, names_of(folder)[:3], out)
        before = out.read_bytes()
        with monkeypatch.context() as patch:
            interrupt_after(extractor, patch, 1)
            with pytest.raises(Stop):
                embed_to_file(extractor, folder, out)
        assert out.read_bytes() == before
        assert embed_to_file(extractor, folder, out).embedded == 3
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(folder), atol=1e-6)

    @pytest.mark.parametrize('damage', ['cut', 'text', 'empty', 'zeros'])
    def test_a_damaged_part_is_done_again(self, extractor, folder, out, monkeypatch, caplog, damage):
        with monkeypatch.context() as patch:
            interrupt_after(extractor, patch, 2)
            with pytest.raises(Stop):
                embed_to_file(extractor, folder, out, save_every=4)
        first, second = sorted(Path(f'{out}.partial').iterdir())
        data = first.read_bytes()
        first.write_bytes({'cut': data[:-9], 'text': b'text', 'empty': b'', 'zeros': bytes(len(data))}[damage])
        (second.parent / 'tmp123').write_bytes(b'half of a par')
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded) == (10, 6)
        assert first.name in caplog.text
        assert not second.parent.exists()
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(folder), atol=1e-6)

    def test_kill(self, extractor, folder, out, tmp_path):
        """A real process, killed with no chance to clean up."""
        for index in range(10, 40):
            shutil.copy(folder / f'{index % 10}.png', folder / f'{index}.png')
        (tmp_path / 'weights').mkdir()
        checkpoint = tmp_path / 'weights/a.pth'
        torch.save(extractor.model.state_dict(), checkpoint)
        script = (
            'import sys, time, torch\n'
            'from timm_dpa.embedding.extractor import FeatureExtractor\n'
            'from timm_dpa.embedding.embed import embed_to_file\n'
            'torch.set_num_threads(1)\n'
            f'extractor = FeatureExtractor("dpa_resnet18", {str(checkpoint)!r}, "cpu", "fp32", 2, {SIZE}, 2)\n'
            'inner = extractor.transform\n'
            'extractor.transform = lambda image: time.sleep(0.05) or inner(image)\n'
            f'embed_to_file(extractor, {str(folder)!r}, {str(out)!r}, save_every=4)\n'
        )
        with subprocess.Popen([sys.executable, '-c', script]) as process:
            deadline = time.monotonic() + 120
            partial = Path(f'{out}.partial')
            while len(list(partial.glob('*.safetensors'))) < 3:
                assert process.poll() is None, 'it ended before it was killed'
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        aside = [name for part in partial.glob('*.safetensors') for name in load_embeddings(part).names]
        assert 12 <= len(aside) < 40
        del extractor.decoded[:]
        report = embed_to_file(extractor, folder, out)
        assert sorted(extractor.decoded + aside) == names_of(folder)
        assert (report.total, report.embedded) == (40, 40 - len(aside))
        assert not partial.exists()
        embed_to_file(extractor, folder, tmp_path / 'whole.safetensors')
        stored, whole = load_embeddings(out), load_embeddings(tmp_path / 'whole.safetensors')
        assert stored.names == whole.names == names_of(folder)
        assert (stored.stamps == whole.stamps).all()
        np.testing.assert_allclose(stored.vectors, whole.vectors, atol=1e-6)


class TestRefused:
    """Nothing that was there is touched."""

    @pytest.fixture
    def other(self):
        return make_extractor(seed=2)

    def refused(self, *arguments, match: str, root: Path, error: type[Exception] = ValueError, **options) -> None:
        before = snapshot(root)
        with pytest.raises(error, match=match) as caught:
            embed_to_file(*arguments, **options)
        assert '\n' not in str(caught.value)
        assert snapshot(root) == before

    def test_vectors_of_other_images(self, extractor, folder, out, tmp_path):
        embed_to_file(extractor, folder, out)
        (tmp_path / 'b').mkdir()
        shutil.copy(folder / '1.png', tmp_path / 'b/1.png')
        self.refused(extractor, tmp_path / 'b', out, match='10 images not in this run.*--overwrite', root=tmp_path)
        report = embed_to_file(extractor, tmp_path / 'b', out, overwrite=True)
        assert (report.total, report.embedded) == (1, 1)
        assert load_embeddings(out).names == [str(tmp_path / 'b/1.png')]

    def test_vectors_of_another_model(self, extractor, other, folder, out, tmp_path):
        embed_to_file(other, folder, out)
        self.refused(extractor, folder, out, match='with other weights.*--overwrite', root=tmp_path)
        assert embed_to_file(extractor, folder, out, overwrite=True).embedded == 10
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(folder), atol=1e-6)

    def test_vectors_of_another_width(self, extractor, folder, out, tmp_path):
        torch.manual_seed(0)
        wide = FeatureExtractor(timm.create_model('dpa_resnet18', global_pool='catavgmax'), image_size=SIZE)
        embed_to_file(wide, folder, out)
        self.refused(extractor, folder, out, match='1024 numbers, those of dpa_resnet18 512', root=tmp_path)

    def test_vectors_of_another_image_size(self, folder, extractor, out, tmp_path):
        embed_to_file(make_extractor(image_size=32), folder, out)
        self.refused(extractor, folder, out, match=r'input_size \[3, 32, 32\], now \[3, 64, 64\]', root=tmp_path)

    def test_parts_of_another_model(self, extractor, other, folder, out, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            interrupt_after(other, patch, 1)
            with pytest.raises(Stop):
                embed_to_file(other, folder, out)
        self.refused(extractor, folder, out, match=r'000000\.safetensors: made with .*--overwrite', root=tmp_path)
        # an interruption of the replacement costs no more than another one
        with monkeypatch.context() as patch:
            interrupt_after(extractor, patch, 1)
            with pytest.raises(Stop):
                embed_to_file(extractor, folder, out, overwrite=True)
        assert embed_to_file(extractor, folder, out, overwrite=True).embedded == 6
        assert not Path(f'{out}.partial').exists()
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(folder), atol=1e-6)

    @pytest.mark.parametrize('overwrite', [False, True])
    def test_a_file_of_another_kind(self, extractor, folder, out, tmp_path, overwrite):
        options = {'root': tmp_path, 'overwrite': overwrite, 'match': 'not an embeddings file.*delete it'}
        out.write_bytes(b'a photo of the boss')
        self.refused(extractor, folder, out, **options)
        save_file({'conv1.weight': np.zeros(3)}, out)
        self.refused(extractor, folder, out, **options)

    def test_out_is_a_folder(self, extractor, folder, tmp_path):
        self.refused(extractor, folder, folder, match='is a folder', root=tmp_path)

    def test_no_folder_for_out(self, extractor, folder, tmp_path):
        self.refused(
            extractor, folder, tmp_path / 'no/a', error=FileNotFoundError, match='no such folder', root=tmp_path
        )
        assert not (tmp_path / 'no').exists()

    def test_an_empty_folder_and_a_missing_file(self, extractor, folder, out, tmp_path):
        embed_to_file(extractor, folder, out)
        (tmp_path / 'empty').mkdir()
        self.refused(extractor, [folder, tmp_path / 'empty'], out, match='no image in this folder', root=tmp_path)
        options = {'error': FileNotFoundError, 'match': 'gone', 'root': tmp_path, 'on_error': 'raise'}
        self.refused(extractor, [folder, 'gone'], out, **options)

    def test_no_place_to_write_shows_before_the_work(self, extractor, folder, out, tmp_path):
        Path(f'{out}.partial').write_bytes(b'a file where the folder should be')
        self.refused(extractor, folder, out, error=OSError, match='partial', root=tmp_path)
        assert extractor.decoded == []

    def test_a_full_disk(self, extractor, folder, out, tmp_path, monkeypatch):
        embed_to_file(extractor, names_of(folder)[:3], out)
        with monkeypatch.context() as patch:

            def full(tensors, path, metadata):
                Path(path).write_bytes(b'half')
                raise files_module.SafetensorError('No space left on device')

            patch.setattr(files_module, 'save_file', full)
            self.refused(extractor, folder, out, error=OSError, match='cannot be written.*No space', root=tmp_path)
        assert embed_to_file(extractor, folder, out).total == 10


class TestFailures:
    def test_images_of_a_folder_are_listed(self, extractor, folder, out):
        names = names_of(folder)
        (folder / '00.jpg').write_bytes(b'text')
        (folder / '99 é, "b".jpg').write_bytes(b'')
        (folder / 'link.jpg').symlink_to('nowhere')
        try:
            (folder / os.fsdecode(b'x\xe9.jpg')).write_bytes(b'')
            bad = 4
        except OSError:
            bad = 3
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded, len(report.failures)) == (10, 10, bad)
        stored = load_embeddings(out)
        assert stored.names == names
        np.testing.assert_allclose(stored.vectors, extractor(names), atol=1e-6)
        assert report.failures_file == Path(f'{out}.failures.csv')
        with report.failures_file.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
            header, *rows = csv.reader(file)
        assert header == ['path', 'reason']
        assert dict(rows) == report.failures
        assert {Path(path).name for path, _ in rows} >= {'00.jpg', '99 é, "b".jpg', 'link.jpg'}

    def test_they_are_tried_again(self, extractor, folder, out):
        (folder / '00.png').write_bytes(b'text')
        listed = embed_to_file(extractor, folder, out).failures_file
        assert listed.exists()
        Image.new('RGB', (9, 9), 'blue').save(folder / '00.png')
        report = embed_to_file(extractor, folder, out)
        assert (report.total, report.embedded, report.failures_file) == (11, 1, None)
        assert not listed.exists()

    def test_an_error_that_is_raised_costs_nothing(self, extractor, folder, out, tmp_path):
        bad = tmp_path / 'bad.jpg'
        bad.write_bytes(b'text')
        with pytest.raises(ImageError, match=r'bad\.jpg'):
            embed_to_file(extractor, [folder, bad], out, on_error='raise')
        assert not out.exists()
        Image.new('RGB', (9, 9), 'blue').save(bad)
        report = embed_to_file(extractor, [folder, bad], out)
        assert (report.total, report.embedded) == (11, 3)

    def test_named_files_are_as_those_of_a_folder(self, extractor, folder, out):
        (folder / '00.jpg').write_bytes(b'text')
        (folder / 'link.jpg').symlink_to('nowhere')
        named = [*names_of(folder), str(folder / 'gone.jpg')]
        report = embed_to_file(extractor, named, out)
        assert (report.total, report.embedded) == (10, 10)
        assert sorted(report.failures) == [str(folder / name) for name in ('00.jpg', 'gone.jpg', 'link.jpg')]
        assert load_embeddings(out).names == [name for name in named if name not in report.failures]

    def test_no_image_at_all(self, extractor, tmp_path, out):
        (tmp_path / 'crops').mkdir()
        (tmp_path / 'crops/a.jpg').write_bytes(b'text')
        with pytest.raises(ValueError, match=r'none of the 1 images can be read; the first: .*a\.jpg'):
            embed_to_file(extractor, tmp_path / 'crops', out)
        assert [path.name for path in tmp_path.iterdir()] == ['crops']


class TestFormats:
    """What cannot be resumed itself is made of the same parts."""

    @pytest.mark.parametrize('suffix', ['.npy', '.csv', '.NPY'])
    def test_an_interrupted_run_is_resumed(self, extractor, folder, tmp_path, monkeypatch, suffix):
        out = tmp_path / f'crops{suffix}'
        with monkeypatch.context() as patch:
            interrupt_after(extractor, patch, 2)
            with pytest.raises(Stop):
                embed_to_file(extractor, folder, out)
        assert not out.exists()
        del extractor.decoded[:]
        assert embed_to_file(extractor, folder, out).embedded == 2
        assert extractor.decoded == names_of(folder)[8:]
        if suffix == '.csv':
            with out.open(newline='') as file:
                _, *rows = csv.reader(file)
            names, vectors = [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
        else:
            names, vectors = json.loads((tmp_path / 'crops.names.json').read_text()), np.load(out)
        assert names == names_of(folder)
        np.testing.assert_allclose(vectors, extractor(folder), atol=1e-6)
        kept = {'crops', out.name} | ({'crops.names.json'} if suffix != '.csv' else set())
        assert {path.name for path in tmp_path.iterdir()} == kept

    @pytest.mark.parametrize('there', ['a.npy', 'a.names.json'])
    def test_a_file_that_is_there_is_replaced_only_when_asked(self, extractor, folder, tmp_path, there):
        (tmp_path / there).write_text('mine')
        with pytest.raises(ValueError, match=rf'{there}: exists, and only .safetensors .*--overwrite'):
            embed_to_file(extractor, folder, tmp_path / 'a.npy')
        assert (tmp_path / there).read_text() == 'mine'
        assert extractor.decoded == []
        embed_to_file(extractor, folder, tmp_path / 'a.npy', overwrite=True)
        assert np.load(tmp_path / 'a.npy').shape == (10, 512)

    @pytest.mark.parametrize('name', ['a.txt', 'a.npz', 'a.pt', 'a.safetensor', 'a.parquet'])
    def test_what_cannot_be_written_shows_before_the_work(self, extractor, folder, tmp_path, name, monkeypatch):
        monkeypatch.setitem(sys.modules, 'pyarrow', None)
        error, match = (ImportError, 'pip install pyarrow') if name == 'a.parquet' else (ValueError, r'must end in \.')
        with pytest.raises(error, match=match):
            embed_to_file(extractor, folder, tmp_path / name)
        assert extractor.decoded == []
        assert [path.name for path in tmp_path.iterdir()] == ['crops']


class TestOneWriter:
    """Two runs on one output would delete each other's parts."""

    SCRIPT = (
        'import sys, time\n'
        'from timm_dpa.embedding.embed import embed_to_file\n'
        'class Slow:\n'
        '    embedding_size, origin = 3, {}\n'
        '    def describe(self):\n'
        '        print("locked", flush=True)\n'
        '        time.sleep(600)\n'
        'embed_to_file(Slow(), sys.argv[1], sys.argv[2])\n'
    )

    def test_the_second_is_told_of_the_first_until_that_dies(self, extractor, folder, out, tmp_path):
        command = [sys.executable, '-c', self.SCRIPT, str(folder), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout.readline() == 'locked\n'
                before = snapshot(tmp_path)
                with pytest.raises(BlockingIOError, match=rf'{out.name}: is in use by process {process.pid} on '):
                    embed_to_file(extractor, folder, out)
                assert snapshot(tmp_path) == before
                assert extractor.decoded == []
            finally:
                process.kill()
        assert embed_to_file(extractor, folder, out).embedded == 10
        assert sorted(path.name for path in tmp_path.iterdir()) == ['crops', 'crops.safetensors']

    def test_another_run_of_the_same_process(self, extractor, folder, out, monkeypatch):
        def images(*_, **__):
            with pytest.raises(BlockingIOError, match=rf'process {os.getpid()} on '):
                embed_to_file(extractor, folder, out)
            raise Stop
            yield

        with monkeypatch.context() as patch:
            patch.setattr(extractor, 'stream', images)
            with pytest.raises(Stop):
                embed_to_file(extractor, folder, out)
        assert embed_to_file(extractor, folder, out).embedded == 10

    def test_half_of_a_file_that_a_killed_process_left_is_removed(self, extractor, folder, out, tmp_path):
        (tmp_path / f'.{out.name}.tmp99_0.safetensors').write_bytes(b'half')
        (tmp_path / '.other.tmp99_0.safetensors').write_bytes(b'of another process')
        embed_to_file(extractor, folder, out)
        assert sorted(path.name for path in tmp_path.iterdir()) == ['.other.tmp99_0.safetensors', 'crops', out.name]
