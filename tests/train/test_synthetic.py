"""Rendered vehicles: the files, their split, and geometry that can be computed by hand."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timm_dpa.cli import main
from timm_dpa.train.data_check import check_data
from timm_dpa.train.datasets import load_data
from timm_dpa.train.metrics import evaluate
from timm_dpa.train.synthetic.dataset import Plan, render_data_set, render_identity
from timm_dpa.train.synthetic.preview import contact_sheet
from timm_dpa.train.synthetic.scenes import Studio

PLAN = Plan(10, 12, seed=3, sizes=(24, 64))


def listing(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def rendered(tmp_path_factory) -> Path:
    return render_data_set(tmp_path_factory.mktemp('synth') / 'set', PLAN, workers=1)


class TestFiles:
    def test_every_image_is_there_and_ready_for_training(self, rendered):
        data = load_data(rendered)
        assert (data.layout, data.has_cameras, data.protocol) == ('veri_uav', True, 'fixed')
        assert len(data.train) + len(data.test) == 120
        assert check_data(data).ready
        about = json.loads((rendered / 'dataset.json').read_text())
        assert about['synthetic'] is True

    def test_tables_say_what_the_images_are(self, rendered):
        images, vehicles = table(rendered / 'images.csv'), table(rendered / 'vehicles.csv')
        assert len(images) == 120
        assert [row['vehicle'] for row in vehicles] == [f'{n:04d}' for n in range(10)]
        for row in images:
            with Image.open(rendered / row['image']) as image:
                assert image.size == (int(row['width']), int(row['height']))
            assert max(int(row['width']), int(row['height'])) <= 64
            assert float(row['left']) < float(row['right'])
            assert float(row['top']) < float(row['bottom'])
            assert 15 <= float(row['altitude']) <= 120
            assert 30 <= float(row['pitch']) <= 90

    def test_same_bytes_for_any_number_of_processes_and_after_an_interruption(self, rendered, tmp_path):
        again = render_data_set(tmp_path / 'two', PLAN, workers=2)
        assert listing(again) == listing(rendered)
        lost = sorted(again.rglob('*.jpg'))[5]
        lost.unlink()
        (again / 'dataset.json').unlink()
        assert listing(render_data_set(again, PLAN, workers=1)) == listing(rendered)

    def test_other_seed_gives_other_vehicles(self, rendered, tmp_path):
        other = render_data_set(tmp_path / 'other', Plan(2, 6, seed=4, sizes=(24, 64)), workers=1)
        assert not set(listing(other).values()) & set(listing(rendered).values())

    def test_contact_sheet(self, rendered, tmp_path):
        with Image.open(contact_sheet(rendered, PLAN, tmp_path / 'sheet.png', rows=4, columns=3, cell=32)) as sheet:
            assert sheet.size == (118 + 3 * 36, 4 * 36)


class TestVehicles:
    def test_models_are_held_out_as_a_whole(self, rendered):
        models = {}
        for row in table(rendered / 'vehicles.csv'):
            models.setdefault(row['part'], set()).add(row['model'])
        assert models['train']
        assert models['test']
        assert not models['train'] & models['test']

    def test_siblings_share_model_and_differ_in_details(self):
        plan = Plan(10, seed=1, alike=1)
        for first in (0, 5):
            siblings = [plan.identity(first + n) for n in range(5)]
            assert len({sibling.model.number for sibling in siblings}) == 1
            assert len({json.dumps(sibling.row()['details']) for sibling in siblings}) == 5
            assert len({tuple(sibling.paint.rgb) for sibling in siblings}) == 1

    def test_siblings_look_different_without_a_camera_between(self):
        plan = Plan(5, 6, seed=1, sizes=(96, 96), alike=1, degradation=0, clean=True, test_share=0)
        studio, flights = Studio(plan.seed), {}
        looks = [next(iter(render_identity(plan, number, studio, flights)))[2] for number in range(2)]
        assert all(look.dtype == np.uint8 and look.ndim == 3 for look in looks)

    @pytest.mark.slow
    def test_colours_alone_do_not_find_them(self, tmp_path):
        """Issue's limit: a colour histogram below 40 % mAP."""
        data = load_data(render_data_set(tmp_path / 'set', Plan(120, 12, seed=5, sizes=(30, 96)), workers=2))

        def histogram(paths: list[str]) -> np.ndarray:
            rows = []
            for path in paths:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert('RGB')).reshape(-1, 3) // 32
                counts = np.bincount(pixels @ [64, 8, 1], minlength=512).astype(np.float32)
                rows.append(np.sqrt(counts / counts.sum()))
            return np.stack(rows)

        scores = evaluate(
            histogram(data.query.paths),
            histogram(data.gallery.paths),
            data.query.pids,
            data.gallery.pids,
            data.query.camids,
            data.gallery.camids,
            exclude_same_camera=True,
        )
        assert scores.mAP < 0.4


class TestWrongUse:
    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            (['--ids', '1'], 'ids must be at least 2'),
            (['--images-per-id', '3'], 'images_per_id must be at least 6'),
            (['--size', '8'], 'size must be'),
            (['--size', '1', '2', '3'], '--size takes'),
            (['--alike', '2'], 'alike must be in 0..1'),
            (['--workers', '0'], 'workers must be at least 1'),
        ],
    )
    def test_is_one_line(self, tmp_path, capsys, argv, message):
        assert main(['synth', '--out', str(tmp_path / 'out'), '--ids', '4', *argv]) == 2
        errors = capsys.readouterr().err
        assert errors.count('\n') == 1
        assert message in errors
        assert not (tmp_path / 'out').exists()

    def test_a_folder_of_something_else_stays(self, rendered, tmp_path, capsys):
        before = listing(rendered)
        assert main(['synth', '--out', str(rendered), '--ids', '4']) == 1
        assert 'holds a data set with another ids' in capsys.readouterr().err
        assert listing(rendered) == before
        (tmp_path / 'mine.txt').touch()
        assert main(['synth', '--out', str(tmp_path), '--ids', '4']) == 1
        assert 'name a new or empty folder' in capsys.readouterr().err
