"""The drawn data set: complete, reproducible, and neither trivial nor hopeless."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timm_dpa.train.data.check import check_data
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.query_gallery import pick_query_gallery
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.data.toy_vehicles import draw_car
from timm_dpa.train.evaluation.metrics import evaluate


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.md5(p.read_bytes()).hexdigest() for p in folder.rglob('*.jpg')}


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return draw_data_set(tmp_path_factory.mktemp('drawn') / 'set', identities=12, images=8, size=64)


class TestDataSet:
    def test_is_ready(self, drawn):
        report = check_data(load_data(drawn))
        assert report.ready
        assert not report.without_positive
        assert (report.layout, report.protocol) == ('veri_uav', 'fixed')
        assert {n: (p.images, p.identities, p.cameras) for n, p in report.parts.items()} == {
            'train': (48, 6, 4), 'test': (48, 6, 4), 'query': (24, 6, 4), 'gallery': (24, 6, 4),
        }  # fmt: skip
        assert report.parts['train'].widths[2] <= 1.1 * 64 + 1

    def test_reproducible(self, drawn, tmp_path):
        assert digests(draw_data_set(tmp_path / 'again', 12, 8, size=64)) == digests(drawn)
        other = digests(draw_data_set(tmp_path / 'other', 12, 8, size=64, seed=1))
        assert other.keys() == digests(drawn).keys()
        assert set(other.values()).isdisjoint(digests(drawn).values())

    def test_colors_rank_above_chance_and_far_from_perfect(self, drawn):
        """The mean color of the middle tells vehicles apart once it is taken relative to the ground's."""
        query, gallery, rule = pick_query_gallery(load_data(drawn))

        def colors(split) -> np.ndarray:
            found = []
            for path in split.paths:
                pixels = np.asarray(Image.open(path).convert('RGB').resize((32, 32)), np.float32)
                ground = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
                found.append(pixels[11:21, 11:21].mean(axis=(0, 1)) / ground - 1)
            return np.stack(found)

        def mean_ap(query_features, gallery_features) -> float:
            return evaluate(
                query_features, gallery_features, query.pids, gallery.pids, query.camids, gallery.camids,
                exclude_same_camera=rule,
            ).mAP  # fmt: skip

        rng = np.random.default_rng(0)
        chance = np.mean([mean_ap(rng.normal(size=(24, 4)), rng.normal(size=(24, 4))) for _ in range(20)])
        assert 1.3 * chance < mean_ap(colors(query), colors(gallery)) < 0.8

    def test_refuses_what_is_there(self, drawn, tmp_path):
        before = digests(drawn)
        with pytest.raises(FileExistsError, match='set'):
            draw_data_set(drawn)
        file = tmp_path / 'file'
        file.write_text('')
        with pytest.raises(FileExistsError, match='file'):
            draw_data_set(file)
        assert digests(drawn) == before

    def test_an_empty_folder_will_do(self, tmp_path):
        (tmp_path / 'empty').mkdir()
        assert len(digests(draw_data_set(tmp_path / 'empty', 4, 4, cameras=2, size=16))) == 16
        assert [path.name for path in tmp_path.iterdir()] == ['empty']

    def test_nothing_is_left_of_a_failure(self, tmp_path, monkeypatch):
        saves = []

        def save(image, path, **options) -> None:
            saves.append(path)
            if len(saves) == 5:
                raise OSError('disk full')

        monkeypatch.setattr(Image.Image, 'save', save)
        with pytest.raises(OSError, match='disk full'):
            draw_data_set(tmp_path / 'new', 4, 8, size=16)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(('option', 'value'), [('identities', 3), ('images', 7), ('cameras', 1), ('size', 8)])
    def test_options(self, tmp_path, option, value):
        with pytest.raises(ValueError, match=f'{option} must be .* not {value}'):
            draw_data_set(tmp_path / 'new', **{option: value})
        assert list(tmp_path.iterdir()) == []


class TestVehicles:
    def test_64_looks(self):
        cars = np.stack([np.asarray(draw_car(identity, 48), np.float32) for identity in range(64)])
        flat = cars.reshape(64, -1)
        apart = np.abs(flat[:, None] - flat[None]).mean(axis=2) + 1000 * np.eye(64)
        assert apart.min() > 2  # of 255, on average over a square that is mostly empty
