"""What embed_to_file refuses, and images that cannot be read. Nothing that was there is touched."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import save_file

from tests.support.embedding_runs import (
    SIZE,
    Stop,
    count_decoded,
    interrupt_after,
    make_extractor,
    names_of,
    snapshot,
    write_crops,
)
from timm_dpa.embedding import files as files_module
from timm_dpa.embedding.embed import embed_to_file
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.embedding.images import ImageError


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
