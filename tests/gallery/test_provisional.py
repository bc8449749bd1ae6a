"""Provisional vehicles in a gallery, by the functions and by `timm-dpa cluster`."""

import csv

import numpy as np
import pytest

from tests.support.galleries import HOUR, open_gallery, unit
from tests.support.models import TINY, tiny
from timm_dpa import FeatureExtractor
from timm_dpa.cli.main import main
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.provisional import assign_vehicles, read_tracks
from timm_dpa.gallery.rows import GalleryRow
from timm_dpa.gallery.tracklets import quality_mean
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder


def track_rows(vehicles=5, tracks=3, images=4, known=False):
    """Vehicles that differ clearly; track k of each is seen by camera k, all at other times, and two images by none."""
    centers = unit(vehicles, seed=1)
    noise = np.random.default_rng(2).normal(size=(vehicles, tracks, images, 16)) * 0.05
    rows = []
    for v in range(vehicles):
        for t in range(tracks):
            for i in range(images):
                vector = centers[v] + noise[v, t, i]
                rows.append(
                    GalleryRow(
                        f'{v}_{t}_{i}.jpg',
                        (vector / np.linalg.norm(vector)).astype(np.float32),
                        camera=f'camera {t}',
                        time=(v * images + i) * HOUR,
                        track=f'v{v} t{t}',
                        vehicle=v if known else None,
                        quality=0.2 * (i + 1),
                    )
                )
    lost = [GalleryRow(f'lost {k}.jpg', unit(1, seed=9 + k)[0], camera='camera 0', time=k) for k in range(2)]
    return [*rows, *lost]


def test_tracks_are_weighted_means(tmp_path):
    rows = track_rows()
    for row in rows[:4]:
        row.quality = 0.0  # a track of which no image tells anything
    tracks = read_tracks(open_gallery(tmp_path / 'garage', rows))
    assert tracks.names == sorted({row.track for row in rows} - {''})
    for name, vector in zip(tracks.names, tracks.vectors, strict=True):
        own = [row for row in rows if row.track == name]
        weights = [row.quality or float(name == 'v0 t0') for row in own]
        np.testing.assert_allclose(vector, quality_mean([row.vector for row in own], weights), atol=1e-6)
    assert (tracks.numbered, tracks.highest, tracks.without, len(tracks.forbidden)) == (0, 0, 2, 0)


def test_two_tracks_of_one_camera_at_one_time_stay_two_vehicles(tmp_path):
    rows = track_rows(vehicles=2)
    for row in rows[4:8]:  # v0 t1 is seen beside v0 t0
        row.camera = 'camera 0'
    tracks = read_tracks(open_gallery(tmp_path / 'garage', rows))
    assert tracks.forbidden.tolist() == [[0, 1]]
    numbers = assign_vehicles(tracks, 0.7).numbers
    assert numbers['v0 t0'] != numbers['v0 t1']
    assert len({numbers[f'v1 t{t}'] for t in range(3)}) == 1


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(line: str):
        status = main(['cluster', *line.split()])
        return status, *capsys.readouterr()

    return run


def test_vehicles_are_written(run):
    open_gallery('garage', track_rows())
    status, out, err = run('garage --threshold 0.7 --out vehicles.csv')
    assert status == 0, err
    assert '15 tracks, 2 images without a track left out; 0 pairs seen by one camera at one time' in out
    assert '5 vehicles at threshold 0.7000, numbers 1..5' in out
    assert '60 rows changed' in out
    rows = list(Gallery('garage').rows())
    assert len({(row.track[:2], row.vehicle) for row in rows if row.track}) == 5
    assert all(row.vehicle is None for row in rows if not row.track)
    with open('vehicles.csv', newline='') as file:
        table = {row['track']: int(row['vehicle']) for row in csv.DictReader(file)}
    assert table == {row.track: row.vehicle for row in rows if row.track}


def test_known_vehicles_are_compared_and_never_lost(run):
    open_gallery('garage', track_rows(known=True))
    before = {row.key: row.vehicle for row in Gallery('garage').rows()}
    status, _, err = run('garage --threshold 0.7')
    assert (status, '15 of 15 tracks have a vehicle already; --overwrite replaces them' in err) == (2, True)
    status, out, _ = run('garage --threshold 0.7 --dry-run')
    assert (status, 'nothing was written' in out) == (0, True)
    assert 'vehicles of 15 tracks: pairwise precision 1.0000, recall 1.0000, F1 1.0000' in out
    status, out, _ = run('garage --threshold 1 --dry-run')  # each track alone
    assert 'precision 1.0000, recall 0.0000, F1 0.0000' in out
    status, out, _ = run('garage --threshold -1 --dry-run')  # all in one: 15 of 105 pairs are of one vehicle
    assert 'precision 0.1429, recall 1.0000, F1 0.2500' in out
    assert {row.key: row.vehicle for row in Gallery('garage').rows()} == before
    status, out, _ = run('garage --threshold 0.7 --overwrite')
    assert (status, 'numbers 5..9' in out) == (0, True)
    assert {row.vehicle for row in Gallery('garage').rows() if row.track} == set(range(5, 10))


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('garage --threshold 2', 'the threshold must be a cosine in -1..1, not 2'),
        ('garage --threshold 0.5 --false-matches 0.01', 'give --threshold or --false-matches, not both'),
        ('nowhere --threshold 0.5', 'nowhere'),
        ('garage --threshold 0.5 --out no/table.csv', 'no such folder for table.csv'),
        ('untracked --threshold 0.5', 'untracked: no image has a track; give tracks with'),
    ],
)
def test_wrong_use_is_one_line(run, line, message):
    open_gallery('garage', track_rows())
    open_gallery('untracked', track_rows()[-2:])
    status, _, err = run(line)
    assert (status, len(err.splitlines())) == (2, 1)
    assert message in err


def garage_of(model, uri):
    """A gallery of four tracks with the origin of a model."""
    extractor = FeatureExtractor(model, device='cpu')
    rows = [GalleryRow(f'{k}.jpg', vector, track=f't{k}') for k, vector in enumerate(unit(4, extractor.embedding_size))]
    open_gallery(uri, rows, origin={**extractor.origin, **extractor.describe()})


def test_the_threshold_comes_from_the_false_match_rate_of_the_weights(run, tmp_path):
    recipe, weights = ModelRecipe(name='dpa_resnet18', args=TINY), tiny('dpa').state_dict()
    known = {'miss_rate': 0.25, 'data': 'toy', 'same_pairs': 60, 'different_pairs': 2000}
    thresholds = [
        {'false_match_rate': rate, 'cosine': cosine, **known} for rate, cosine in ((0.01, 0.6), (0.001, 0.75))
    ]
    save_model_folder(recipe, (64, 64), weights, tmp_path / 'measured', thresholds)
    save_model_folder(recipe, (64, 64), weights, tmp_path / 'other')
    garage_of('measured', 'garage')
    garage_of('other', 'unmeasured')
    assert 'threshold 0.7500' in run('garage --device cpu --dry-run')[1]
    assert 'threshold 0.6000' in run('garage --device cpu --false-matches 0.01 --dry-run')[1]
    for line, message in (
        ('garage --false-matches 0.5', 'only for 0.001, 0.01, not 0.5; give --threshold'),
        ('unmeasured', 'a threshold for false matches for no rate, not 0.001; give --threshold'),
        ('garage --model measured --image-size 96', 'embeddings of the two cannot be compared'),
    ):
        status, _, err = run(f'{line} --device cpu --dry-run')
        assert (status, message in err) == (2, True), err
