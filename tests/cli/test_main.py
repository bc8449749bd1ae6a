"""The command line, mostly as real processes see it: exit status, what is printed where, and which files are left."""

import contextlib
import csv
import fcntl
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.support.processes import heed_ctrl_c
from timm_dpa.cli.main import main
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.train.data.toy_vehicles import draw_vehicle

COMMAND = [sys.executable, '-m', 'timm_dpa.cli']
MODEL = ['--model', 'cpa_resnet18', '--image-size', '64', '--precision', 'fp32', '--device', 'cpu']
#: a busy machine must not decide how long this takes
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'LC_ALL': 'C.UTF-8'}
RANDOM = 'timm-dpa: cpa_resnet18 has no released weights: random weights, good for trying things out only\n'


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'crops'
    folder.mkdir()
    for identity in range(3):
        for view in range(2):
            draw_vehicle(identity, view).save(folder / f'{identity}_{view}.png')
    return folder


@pytest.fixture(scope='module')
def vectors(crops):
    """A file of embeddings that tests read only."""
    path = crops.parent / 'crops.safetensors'
    assert main(['embed', str(crops), '--out', str(path), *MODEL]) == 0
    return path


@pytest.fixture(scope='module')
def places(crops, vectors, tmp_path_factory):
    """What the commands of wrong use speak of."""
    tmp = tmp_path_factory.mktemp('places')
    (tmp / 'empty').mkdir()
    (tmp / 'bad').mkdir()
    (tmp / 'bad/a.jpg').write_bytes(b'text')
    for name in ('text.jpg', 'photo', 'a.npy'):
        (tmp / name).write_bytes(b'text')
    torch.save(timm.create_model('reid_resnet18').state_dict(), tmp / 'w.pth')
    return {'crops': crops, 'vectors': vectors, 'tmp': tmp}


@pytest.fixture
def run(capsys):
    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def snapshot(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob('*') if path.is_file()}


def process(*arguments, **options) -> subprocess.CompletedProcess:
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'env': ENVIRONMENT, 'timeout': 200, **options}
    return subprocess.run([*COMMAND, *map(str, arguments)], check=False, **options)


class TestEmbed:
    def test_file_and_output(self, run, crops, tmp_path):
        out = tmp_path / 'a.safetensors'
        status, printed, errors = run('embed', crops, '--out', out, *MODEL)
        assert (status, errors) == (0, '')
        assert printed == f'6 images embedded\n6 embeddings in {out}\n'
        stored = load_embeddings(out)
        expected = FeatureExtractor('cpa_resnet18', False, 'cpu', 'fp32', image_size=64)(crops)
        np.testing.assert_allclose(stored.vectors, expected, atol=1e-5)
        assert stored.names == sorted(str(path) for path in crops.iterdir())
        assert run('embed', crops, '--out', out, *MODEL)[1].startswith(
            '0 images embedded, 6 known from an earlier run\n'
        )

    def test_options_reach_the_extractor(self, run, crops, tmp_path):
        torch.manual_seed(5)
        torch.save(timm.create_model('dpa_resnet18').state_dict(), tmp_path / 'w.pth')
        out = tmp_path / 'a.safetensors'
        options = ['--checkpoint', tmp_path / 'w.pth', '--batch-size', 2, '--workers', 1, '--model', 'dpa_resnet18']
        size = ['--image-size', 48, 64, '--precision', 'fp32', '--device', 'cpu']
        assert run('embed', crops / '0_0.png', '--out', out, *options, *size)[0] == 0
        extractor = FeatureExtractor('dpa_resnet18', tmp_path / 'w.pth', 'cpu', 'fp32', image_size=(48, 64))
        np.testing.assert_allclose(load_embeddings(out).vectors, extractor(crops / '0_0.png'), atol=1e-5)
        # a search takes model, weights and size from the file
        status, printed, _ = run('search', '--query', crops / '0_0.png', '--gallery', out, '--precision', 'fp32')
        assert status == 0
        assert 'itself left out' in printed

    def test_unreadable_images_of_a_folder(self, run, crops, tmp_path):
        folder = tmp_path / 'more'
        folder.mkdir()
        (folder / 'a.png').write_bytes((crops / '0_0.png').read_bytes())
        (folder / 'bad.jpg').write_bytes(b'text')
        out = tmp_path / 'a.safetensors'
        status, printed, _ = run('embed', folder, '--out', out, *MODEL)
        assert status == 0
        assert printed == f'1 images embedded\n1 could not be read: {out}.failures.csv\n1 embeddings in {out}\n'

    def test_other_formats(self, run, crops, tmp_path):
        status, printed, _ = run('embed', crops, '--out', tmp_path / 'a.npy', *MODEL)
        assert status == 0
        assert printed.endswith(f'6 embeddings in {tmp_path}/a.npy, their names in {tmp_path}/a.names.json\n')
        expected = FeatureExtractor('cpa_resnet18', False, 'cpu', 'fp32', image_size=64)(crops)
        np.testing.assert_allclose(np.load(tmp_path / 'a.npy'), expected, atol=1e-5)
        assert sorted(os.listdir(tmp_path)) == ['a.names.json', 'a.npy']

    def test_one_bad_image_among_many_that_are_named(self, run, crops, tmp_path):
        """As `crops/*.jpg` names them."""
        bad, out = tmp_path / 'bad.jpg', tmp_path / 'a.safetensors'
        bad.write_bytes((crops / '0_0.png').read_bytes()[:-100])
        (tmp_path / 'link.jpg').symlink_to('nowhere')
        named = [*sorted(crops.iterdir()), bad, tmp_path / 'link.jpg']
        status, printed, _ = run('embed', *named, '--out', out, *MODEL)
        assert status == 0
        assert printed.startswith('6 images embedded\n2 could not be read: ')
        with open(f'{out}.failures.csv', newline='') as file:
            assert [row[0] for row in csv.reader(file)] == ['path', str(bad), str(tmp_path / 'link.jpg')]

    def test_what_is_left_out_of_a_folder_is_said(self, run, crops, tmp_path, caplog):
        (tmp_path / 'a.jfif').write_bytes((crops / '0_0.png').read_bytes())
        (tmp_path / 'list.txt').write_text('text')
        (tmp_path / '@eaDir').mkdir()
        (tmp_path / '@eaDir/a.jpg').write_bytes((crops / '0_0.png').read_bytes())
        status, printed, _ = run('embed', tmp_path, '--out', tmp_path / 'a.safetensors', *MODEL)
        assert (status, printed.splitlines()[0]) == (0, '1 images embedded')
        left_out = '1 file that Pillow cannot open (1 .txt) and 1 hidden folder (1 @eaDir)'
        assert f'{tmp_path}: left out {left_out}' in caplog.messages

    def test_a_transformer_of_another_size(self, run, crops, tmp_path):
        torch.save(timm.create_model('test_vit3').state_dict(), tmp_path / 'vit.pth')
        options = ['--model', 'test_vit3', '--checkpoint', tmp_path / 'vit.pth', '--image-size', 64, 96]
        out = tmp_path / 'a.safetensors'
        assert run('embed', crops, '--out', out, *options, '--device', 'cpu', '--precision', 'fp32')[0] == 0
        assert run('search', '--query', crops / '0_0.png', '--gallery', out, '--device', 'cpu')[0] == 0

    def test_nan_weights(self, run, crops, tmp_path):
        state = timm.create_model('cpa_resnet18').state_dict()
        state['layer1.0.conv1.weight'][0] = torch.nan
        torch.save(state, tmp_path / 'nan.pth')
        out = tmp_path / 'a.safetensors'
        status, printed, errors = run('embed', crops, '--out', out, '--checkpoint', tmp_path / 'nan.pth', *MODEL)
        assert (status, printed) == (1, '')
        assert errors.startswith(f'timm-dpa embed: {crops / "0_0.png"}: the embedding is not finite')
        assert os.listdir(tmp_path) == ['nan.pth']


class TestErrors:
    """One line, exit status 2, and nothing is touched."""

    CASES = {  # noqa: RUF012
        'missing image': ('embed {crops}/none.png --out {tmp}/a', 'none.png: no such file or folder'),
        'empty folder': ('embed {tmp}/empty --out {tmp}/a', 'no image in this folder'),
        'text as image': ('embed {tmp}/text.jpg --out {tmp}/a', 'text.jpg: not an image'),
        'no folder for out': ('embed {crops} --out {tmp}/no/a', 'no such folder'),
        'out is a folder': ('embed {crops} --out {tmp}/empty', 'is a folder'),
        'out is an image': ('embed {crops} --out {crops}/0_0.png', 'must end in .safetensors, .npy'),
        'out is a list': ('embed {crops} --out {tmp}/text.npz', 'must end in .safetensors, .npy'),
        'no JPEG in a JPEG': ('embed {tmp}/text.jpg --out {tmp}/a --on-error raise', 'text.jpg: not an image'),
        'out is a photo': ('embed {crops} --out {tmp}/photo --overwrite', 'not an embeddings file'),
        'numbers as gallery': ('search --query {crops}/0_0.png --gallery {tmp}/a.npy', 'use the .safetensors file'),
        'no pixels': ('embed {crops} --out {tmp}/a --max-pixels 0', 'max_pixels must be at least 1'),
        'out has other images': ('embed {crops}/0_0.png --out {vectors}', '5 images not in this run'),
        'out is of another model': ('embed {crops} --out {vectors} --model reid_resnet18', 'made with cpa_resnet18'),
        'unknown model': ('embed {crops} --out {tmp}/a --model dpa_resnet19', 'timm-dpa models'),
        'unknown tag': ('embed {crops} --out {tmp}/a --model dpa_resnet18.none', 'dpa_resnet18; timm-dpa models'),
        'unknown device': ('embed {crops} --out {tmp}/a --device gpu', 'device gpu'),
        'no batch': ('embed {crops} --out {tmp}/a --batch-size 0', 'batch_size'),
        'three sizes': ('embed {crops} --out {tmp}/a --image-size 1 2 3', '--image-size'),
        'missing checkpoint': ('embed {crops} --out {tmp}/a --checkpoint none.pth', 'none.pth'),
        'foreign checkpoint': ('embed {crops} --out {tmp}/a --checkpoint {tmp}/w.pth', 'another architecture'),
        'text as checkpoint': ('embed {crops} --out {tmp}/a --checkpoint {tmp}/text.jpg', 'text.jpg'),
        'missing gallery': ('search --query {crops}/0_0.png --gallery {tmp}/none', 'none: no such gallery'),
        'empty gallery': ('search --query {crops}/0_0.png --gallery {tmp}/empty', 'no image in this folder'),
        'unreadable gallery': ('search --query {crops}/0_0.png --gallery {tmp}/bad', 'no image of the gallery'),
        'text as gallery': ('search --query {crops}/0_0.png --gallery {tmp}/text.jpg', 'timm-dpa embed'),
        'missing query': ('search --query none.png --gallery {vectors}', 'none.png'),
        'unreadable query': ('search --query {tmp}/text.jpg --gallery {vectors}', 'no image of the queries'),
        'unreadable queries': ('search --query {tmp}/bad --gallery {vectors}', 'no image of the queries'),
        'another model': ('search --query {crops} --gallery {vectors} --model reid_resnet18', 'now reid_resnet18'),
        'another size': ('search --query {crops} --gallery {vectors} --image-size 32', 'input_size'),
        'top': ('search --query {crops}/0_0.png --gallery {vectors} --top 0', '--top'),
        'figure': ('search --query none.png --gallery none --figure {tmp}/a.docx', 'must end in .png or .jpg'),
        'figure nowhere': ('search --query none.png --gallery none --figure {tmp}/no/a.png', 'no such folder'),
        'table is a folder': ('search --query none.png --gallery none --out {tmp}/empty', 'is a folder'),
        'table over the gallery': ('search --query {crops} --gallery {vectors} --out {vectors}', 'is an input'),
        'figure over the query': (
            'search --query {crops}/0_0.png --gallery none --figure {crops}/0_0.png',
            'is an input',
        ),
        'unknown models': ('models nothing*', 'nothing*'),
        'export of none': ('export dpa_resnet19 --out {tmp}/a.onnx', 'timm-dpa models'),
        'export nowhere': ('export dpa_resnet18 --out {tmp}/no/a.onnx', 'does not exist'),
    }

    @pytest.mark.parametrize('case', CASES)
    def test_wrong_use(self, run, places, case):
        command, reason = self.CASES[case]
        verb, *arguments = command.format(**places).split()
        if verb in ('embed', 'search'):
            arguments = [*MODEL, *arguments]
        before = snapshot(places['tmp'], places['crops'].parent)
        status, printed, errors = run(verb, *arguments)
        assert (status, printed) == (2, '')
        *more, line = errors.splitlines()
        assert line.startswith(f'timm-dpa {verb}: ')
        assert reason in line
        assert all('left out' in other for other in more)
        assert snapshot(places['tmp'], places['crops'].parent) == before

    def test_vectors_of_another_width(self, run, crops, vectors):
        status, _, errors = run('search', '--query', crops, '--gallery', vectors, *MODEL[2:], '--model', 'spa_resnet50')
        assert status == 2
        assert 'its embeddings have 512 numbers, those of spa_resnet50 2048; use the model that made them' in errors


class TestSearch:
    def test_table_figure_and_output(self, run, crops, vectors, tmp_path):
        figure, table = tmp_path / 'ranks.png', tmp_path / 'ranks.csv'
        query = crops / '1_0.png'
        status, printed, errors = run(
            *('search', '--query', query, '--gallery', vectors, '--top', 3, '--figure', figure, '--out', table, *MODEL)
        )
        assert (status, errors) == (0, '')
        stored = load_embeddings(vectors)
        row = stored.names.index(str(query))
        similarity = stored.vectors.astype(np.float64) @ stored.vectors[row]
        order = [i for i in np.argsort(-similarity, kind='stable') if i != row][:3]
        with table.open(newline='') as file:
            header, *lines = csv.reader(file)
        assert header == ['query', 'rank', 'similarity', 'image']
        assert [line[3] for line in lines] == [stored.names[i] for i in order]
        assert [line[1] for line in lines] == ['1', '2', '3']
        assert [float(line[2]) for line in lines] == pytest.approx(similarity[order].tolist(), abs=1e-5)
        shown = printed.splitlines()
        assert shown[0] == f'{query}  (gallery of 6, itself left out)'
        for line, i in zip(shown[2:5], order, strict=True):
            assert line.endswith(f'  {stored.names[i]}')
        assert shown[5:] == [f'table: {table}', f'figure: {figure}']
        with Image.open(figure) as image, Image.open(query) as original:
            pixels = np.asarray(image).astype(int)
            expected = np.asarray(original.resize((144, 144), Image.Resampling.BICUBIC)).astype(int)
        inside = pixels[8 + 20 + 4 : 8 + 20 + 140, 8 + 4 : 8 + 140]
        assert np.abs(inside - expected[4:140, 4:140]).max() <= 1
        assert sorted(os.listdir(tmp_path)) == ['ranks.csv', 'ranks.png']

    def test_a_folder_gives_the_same_as_its_file(self, run, crops, vectors):
        def similar(gallery):
            printed = run('search', '--query', crops / '0_0.png', '--gallery', gallery, *MODEL)[1]
            return [line.split()[::2] for line in printed.splitlines()[2:]]

        assert similar(crops) == similar(vectors)
        assert len(similar(crops)) == 5

    def test_a_gallery_that_has_moved(self, run, crops, vectors, tmp_path, monkeypatch):
        """Names are relative to where embed ran; pictures and the query itself are found beside the file as well."""
        (tmp_path / 'here').mkdir()
        (tmp_path / 'here/crops').symlink_to(crops)
        monkeypatch.chdir(tmp_path / 'here')
        assert run('embed', 'crops', '--out', 'a.safetensors', *MODEL)[0] == 0
        monkeypatch.chdir(tmp_path)
        printed = run('search', '--query', crops / '0_0.png', '--gallery', 'here/a.safetensors', *MODEL)[1]
        assert 'itself left out' in printed
        (tmp_path / 'here/crops').unlink()
        figure = tmp_path / 'b.jpg'
        arguments = ['--query', crops / '0_0.png', '--gallery', 'here/a.safetensors', '--figure', figure, *MODEL]
        assert run('search', *arguments)[0] == 0
        with Image.open(figure) as image:
            assert (np.abs(np.asarray(image).astype(int) - 0xEE) < 6).all(axis=-1).mean() > 0.4

    def test_a_figure_of_very_many_is_cut(self, run, crops, vectors, tmp_path, monkeypatch):
        monkeypatch.setattr('timm_dpa.cli.search._FIGURE_LIMIT', 2)
        figure = tmp_path / 'a.png'
        status, printed, _ = run('search', '--query', crops, '--gallery', vectors, '--figure', figure, *MODEL)
        assert status == 0
        assert printed.endswith(f'figure of the first 2 queries and ranks: {figure}\n')
        with Image.open(figure) as image:
            assert image.width < 4 * 152
            assert image.height < 3 * 200

    def test_unreadable_images_are_named(self, run, crops, vectors, tmp_path):
        (tmp_path / 'a.png').write_bytes((crops / '0_0.png').read_bytes())
        (tmp_path / 'bad.jpg').write_bytes(b'text')
        for query, gallery in ((tmp_path, vectors), (crops / '1_1.png', tmp_path)):
            status, _, errors = run('search', '--query', query, '--gallery', gallery, *MODEL)
            assert status == 0
            assert f'timm-dpa search: left out: {tmp_path / "bad.jpg"}: not an image' in errors


class TestOtherVerbs:
    def test_models(self, run):
        status, printed, _ = run('models', 'dpa_*')
        header, *lines = printed.splitlines()
        assert status == 0
        assert re.split('  +', header) == [
            'model',
            'attention',
            'parameters (M)',
            'GMACs',
            'embedding',
            'pretrained tags',
        ]
        table = {cells[0]: cells for cells in map(str.split, lines)}
        assert list(table) == ['dpa_resnet18', 'dpa_resnet50']
        model = timm.create_model('dpa_resnet50')
        assert table['dpa_resnet50'][2] == f'{sum(p.numel() for p in model.parameters()) / 1e6:.1f}'
        assert table['dpa_resnet50'][4] == '2048'

    def test_export(self, run, tmp_path):
        out = tmp_path / 'a.pt2'
        status, printed, _ = run('export', 'dpa_resnet18', '--format', 'torch-export', '--image-size', 32, '--out', out)
        assert status == 0
        assert out.is_file()
        first, second, third, fourth = printed.splitlines()
        assert re.fullmatch(r'torch-export, \d+\.\d MB, checked with images of 32 x 32', first)
        assert second.startswith('largest difference from PyTorch: ')
        assert third.startswith('input: float32 N x 3 x 32 x 32, ')
        assert fourth == f'model: {out}'

    def test_export_for_other_runtimes(self, run, tmp_path):
        import onnx

        out, options = tmp_path / 'a.onnx', ['--image-size', 32, '--batch', 1, '--opset', 16]
        assert run('export', 'reid_resnet18', '--out', out, *options)[0] == 0
        model = onnx.load(out)
        assert [entry.version for entry in model.opset_import] == [16]
        assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]

    def test_drawings(self):
        first = np.asarray(draw_vehicle(0, 0))
        assert first.shape == (128, 128, 3)
        assert (np.asarray(draw_vehicle(0, 0)) == first).all()
        for other in (draw_vehicle(1, 0), draw_vehicle(0, 1), draw_vehicle(0, 0, seed=1)):
            assert np.abs(np.asarray(other).astype(int) - first).mean() > 5


class TestProcesses:
    def test_embed_then_search(self, crops, tmp_path):
        """Names of any bytes, the console script, no bar where there is no terminal."""
        name = os.path.join(os.fsencode(tmp_path), 'ü 車 '.encode() + b'caf\xe9.png')
        try:
            Path(os.fsdecode(name)).write_bytes((crops / '0_0.png').read_bytes())
        except OSError:
            pytest.skip('this file system wants UTF-8')
        (tmp_path / 'b.png').write_bytes((crops / '0_1.png').read_bytes())
        script = Path(sys.executable).with_name('timm-dpa')
        command = [str(script)] if script.exists() else COMMAND
        done = subprocess.run(
            [*command, 'embed', str(tmp_path), '--out', str(tmp_path / 'a.safetensors'), *MODEL],
            capture_output=True,
            env=ENVIRONMENT,
            timeout=200,
            check=True,
        )
        assert done.stdout.decode() == f'2 images embedded\n2 embeddings in {tmp_path / "a.safetensors"}\n'
        assert done.stderr.decode() == RANDOM
        figure = tmp_path / 'f.png'
        arguments = ['--query', tmp_path / 'b.png', '--gallery', tmp_path / 'a.safetensors', '--figure', figure]
        done = process('search', *arguments, *MODEL)
        assert (done.returncode, done.stderr.decode()) == (0, RANDOM)
        assert done.stdout.splitlines()[2].endswith(name)
        assert done.stdout.splitlines()[-1] == b'figure: ' + os.fsencode(figure)

    def test_a_closed_pipe(self, crops, vectors, tmp_path):
        """As `| head` leaves it: the files are written all the same."""
        reading, writing = os.pipe()
        os.close(reading)
        table = tmp_path / 'a.csv'
        arguments = ['--query', crops / '0_0.png', '--gallery', vectors, '--out', table]
        done = process('search', *arguments, *MODEL, stdout=writing)
        os.close(writing)
        assert (done.returncode, done.stderr.decode()) == (0, RANDOM)
        assert len(table.read_text().splitlines()) == 6

    @pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
    def test_output_to_a_full_disk(self):
        with open('/dev/full', 'w') as full:
            done = process('models', 'dpa_resnet18', stdout=full)
        assert done.returncode == 1
        assert re.fullmatch(r'timm-dpa models: .*No space left on device\n', done.stderr.decode())

    def test_vectors_to_a_full_disk(self, crops, tmp_path):
        """A limit of the file size stands for the disk."""
        out = tmp_path / 'a.safetensors'

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

        done = process('embed', crops, '--out', out, *MODEL, preexec_fn=limit)
        assert done.returncode == 1
        *_, line = done.stderr.decode().splitlines()
        assert line.startswith('timm-dpa embed: ')
        assert 'Traceback' not in done.stderr.decode()
        assert not out.exists()

    def test_ctrl_c_and_the_bar(self, run, crops, tmp_path):
        folder, out = tmp_path / 'many', tmp_path / 'a.safetensors'
        folder.mkdir()
        for index in range(400):  # more than any machine does in the second before the bar shows
            os.link(crops / '0_0.png', folder / f'{index:03d}.png')
        arguments = ['embed', str(folder), '--out', str(out), *MODEL, '--image-size', '128', '--batch-size', '1']
        terminal, errors = pty.openpty()
        fcntl.ioctl(errors, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
        with subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=ENVIRONMENT,
            preexec_fn=heed_ctrl_c,
        ) as running:
            os.close(errors)  # so that the terminal ends with the process
            shown, deadline = b'', time.monotonic() + 120
            while b'/400' not in shown:
                assert time.monotonic() < deadline
                assert running.poll() is None, shown
                if select.select([terminal], [], [], 0.1)[0]:
                    shown += os.read(terminal, 4096)
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=60)[0] == b''
            assert running.returncode == 130
        with contextlib.suppress(OSError):  # Linux's EIO says that the terminal has ended
            while rest := os.read(terminal, 4096):
                shown += rest
        os.close(terminal)
        assert b'embedding:' in shown
        assert shown.endswith(b'timm-dpa embed: interrupted; rerun the command to resume\r\n')
        assert b'Traceback' not in shown
        assert not out.exists()
        (part,) = Path(f'{out}.partial').iterdir()
        known = load_embeddings(part).names
        assert 0 < len(known) < 400

        for path in sorted(set(folder.iterdir()) - set(map(Path, known)))[5:]:
            path.unlink()  # the rest would only take time
        status, printed, errors = run(*arguments)
        assert (status, errors) == (0, '')
        count = len(os.listdir(folder))
        expected = f'{count - len(known)} images embedded, {len(known)} known from an earlier run\n'
        assert printed == f'{expected}{count} embeddings in {out}\n'
        assert np.ptp(load_embeddings(out).vectors, axis=0).max() < 1e-5  # all are the same image
        assert not Path(f'{out}.partial').exists()
