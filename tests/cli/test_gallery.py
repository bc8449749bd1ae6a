"""`embed --gallery`, `search --gallery` and `gallery` on drawn vehicles, from day one to day two."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from timm_dpa.cli.main import main
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.train.data.toy_vehicles import draw_vehicle

MODEL = ('--model', 'dpa_resnet18', '--image-size', '64', '--device', 'cpu', '--precision', 'fp32')


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """Two days of three vehicles, two images of each."""
    folder = tmp_path_factory.mktemp('drawn')
    for day in ('monday', 'tuesday'):
        (folder / day).mkdir()
        for vehicle in range(3):
            for view in range(2):
                draw_vehicle(vehicle, view + 2 * (day == 'tuesday')).save(folder / day / f'{vehicle}_{view}.jpg')
    return folder


@pytest.fixture
def run(drawn, tmp_path, monkeypatch, capsys):
    """Runs a command beside the crops; gives its exit status, output and errors."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def run(line: str, *more: str):
        status = main([*line.split(), *more])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def test_day_one_and_day_two(run, tmp_path):
    status, out, err = run('embed monday --gallery garage --camera north --time 2026-05-04T08:00:00', *MODEL)
    assert (status, '6 images embedded' in out, '6 rows in garage' in out) == (0, True, True), err
    (tmp_path / 'tuesday.csv').write_text(
        'path,camera,time,track,vehicle\n'
        + ''.join(f'tuesday/{v}_{k}.jpg,south,2026-05-05T0{k}:00:00Z,t{v},{v}\n' for v in range(3) for k in range(2))
    )
    status, out, err = run('embed monday tuesday --gallery garage --table tuesday.csv', *MODEL)
    assert (status, '6 images embedded, 0 known with other facts, 6 unchanged' in out) == (0, True), err
    rows = {row.key: row for row in Gallery('garage').rows()}
    assert (rows['monday/1_0.jpg'].camera, rows['monday/1_0.jpg'].track) == ('north', '')
    assert (rows['tuesday/2_1.jpg'].camera, rows['tuesday/2_1.jpg'].track) == ('south', 't2')
    assert rows['tuesday/2_1.jpg'].vehicle == 2

    search = 'search --query monday/0_0.jpg --gallery garage --device cpu --precision fp32'
    status, out, err = run(f'{search} --top 20 --figure ranks.png --out ranks.csv', *MODEL[2:4])
    assert (status, 'gallery of 12, 1 of the query left out; exact' in out) == (0, True), err
    assert 'no thresholds are known' in out
    with open('ranks.csv', newline='') as file:
        table = list(csv.DictReader(file))
    assert len(table) == 11
    assert {row['image'] for row in table} == set(rows) - {'monday/0_0.jpg'}
    assert [float(row['similarity']) for row in table] == sorted(float(row['similarity']) for row in table)[::-1]

    status, out, _ = run(f'{search} --camera south --after 2026-05-05T00:30:00Z --exclude-track t1', *MODEL[2:4])
    assert status == 0
    assert '2 match the filter' in out
    assert {'tuesday/0_1.jpg', 'tuesday/2_1.jpg'} == {word for word in out.split() if word.startswith('tuesday')}

    status, out, err = run(f'{search} --by track --rerank 8 --camera south --tracklet', *MODEL[2:4])
    assert (status, 'mean' in out, 'tracklet of 1 images' in out) == (0, True, True), err
    assert sorted(line.split()[3] for line in out.splitlines()[2:5]) == ['2', '2', '2']


def test_figure_shows_thumbnails_of_images_that_are_gone(run, tmp_path):
    run('embed monday --gallery garage', *MODEL)
    expected = np.asarray(Image.open(tmp_path / 'monday' / '0_1.jpg').convert('RGB')).mean((0, 1))
    Image.open(tmp_path / 'monday' / '0_0.jpg').save(tmp_path / 'query.jpg')
    shutil.rmtree(tmp_path / 'monday')
    status, _, err = run('search --query query.jpg --gallery garage --top 6 --figure ranks.png', *MODEL[4:])
    assert status == 0, err
    figure = np.asarray(Image.open('ranks.png').convert('RGB'), float)
    assert 'not available' not in err
    tiles = [figure[28:172, left : left + 144].mean((0, 1)) for left in range(8 + 152 + 16, figure.shape[1] - 140, 152)]
    assert min(np.abs(tile - expected).max() for tile in tiles) < 12


def test_subcommands(run):
    run('embed monday --gallery garage --camera north', *MODEL)
    run('embed tuesday --gallery garage --camera south', *MODEL)
    status, out, _ = run('gallery info garage')
    assert status == 0
    assert 'camera south: 6' in out
    assert 'searches are exact' in out
    assert run('gallery remove garage --camera south --dry-run')[1] == '6 of 12 rows would be removed\n'
    assert run('gallery remove garage --camera south')[1] == '6 rows removed, 6 left in garage\n'
    assert '6 rows, 0 of them in the index' in run('gallery optimize garage')[1]
    assert run('gallery export garage --out all.safetensors')[0] == 0
    assert len(load_embeddings('all.safetensors').names) == 6


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('embed monday --out a.safetensors --camera north', '--camera: for --gallery'),
        ('embed monday --gallery monday', 'monday: has other files in it'),
        ('gallery info monday', 'monday: no gallery; make one with'),
        ('gallery remove garage', 'say which rows'),
        ('search --query monday/0_0.jpg --gallery monday --camera north', 'are for a gallery'),
        ('search --query monday/0_0.jpg --gallery garage --after noon', "after 'noon' is no time"),
    ],
)
def test_wrong_use(run, line, message):
    if 'garage' in line:
        run('embed monday/0_0.jpg --gallery garage', *MODEL)
    status, _, err = run(line, *(MODEL if line.startswith('embed') else ()))
    assert status == 2
    assert message in err.splitlines()[-1]


def test_other_weights(run):
    run('embed monday --gallery garage', *MODEL)
    status, _, err = run('embed tuesday --gallery garage --model reid_resnet18 --image-size 64')
    assert status == 2
    assert 'garage: made with dpa_resnet18' in err
