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
import torch
from PIL import Image
from safetensors.numpy import load_file

from tests.support.embedding_runs import (
    SIZE,
    Stop,
    count_decoded,
    interrupt_after,
    make_extractor,
    names_of,
    write_crops,
)
from timm_dpa.embedding.embed import embed_to_file
from timm_dpa.embedding.files import load_embeddings


@pytest.fixture(scope='module')
def shared_extractor():
    return make_extractor()


@pytest.fixture
def extractor(shared_extractor, monkeypatch):
    """It counts what it decodes."""
    return count_decoded(shared_extractor, monkeypatch)


@pytest.fixture
def folder(tmp_path):
    return write_crops(tmp_path / 'crops')


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'crops.safetensors'


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
            while len(list(partial.glob('[0-9]*.safetensors'))) < 3:
                assert process.poll() is None, 'it ended before it was killed'
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
        aside = [name for part in partial.glob('[0-9]*.safetensors') for name in load_embeddings(part).names]
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
