"""A rendered data set on disk: its files, tables and split, interruptions, and wrong use."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.processes import heed_ctrl_c
from timm_dpa.cli.main import main
from timm_dpa.synth.dataset import render_data_set
from timm_dpa.synth.plan import Plan
from timm_dpa.synth.preview import contact_sheet
from timm_dpa.train.data.check import check_data
from timm_dpa.train.data.datasets import load_data

ROOT = Path(__file__).parents[2]
PLAN = Plan(16, 6, seed=3, sizes=(24, 64), siblings=4, cameras=3, flights=12)
OPTIONS = ('--ids', '16', '--images-per-id', '6', '--seed', '3', '--size', '24', '64')
OPTIONS += ('--siblings', '4', '--cameras', '3', '--flights', '12')


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
    """By one process; tests read it only."""
    return render_data_set(tmp_path_factory.mktemp('synth') / 'set', PLAN, workers=1)


@pytest.fixture
def copied(rendered, tmp_path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / 'copy'))


class TestFiles:
    def test_every_image_is_there_and_ready_for_training(self, rendered):
        data = load_data(rendered)
        assert (data.layout, data.has_cameras, data.protocol) == ('veri_uav', True, 'fixed')
        assert (len(data.train), len(data.query), len(data.gallery)) == (12 * 6, 4 * 3, 4 * 3)
        report = check_data(data)
        assert report.ready
        assert all('cannot fall below' in remark for remark in report.remarks())  # so few vehicles
        assert not report.without_positive
        assert json.loads((rendered / 'dataset.json').read_text())['synthetic'] is True
        assert sorted(path.name for path in rendered.iterdir()) == [
            *('dataset.json', 'image_query', 'image_test', 'image_train', 'images.csv', 'synth.json', 'vehicles.csv')
        ]

    def test_tables_say_what_the_images_are(self, rendered):
        images, vehicles = table(rendered / 'images.csv'), table(rendered / 'vehicles.csv')
        assert {row['image'] for row in images} == {p.relative_to(rendered).as_posix() for p in rendered.rglob('*.jpg')}
        assert [row['vehicle'] for row in vehicles] == [f'{n:04d}' for n in range(16)]
        parts = {row['vehicle']: row['part'] for row in vehicles}
        for row in images:
            with Image.open(rendered / row['image']) as image:
                assert image.size == (int(row['width']), int(row['height']))
            assert re.fullmatch(rf'image_\w+/{row["vehicle"]}_{int(row["camera"]):02d}_\d{{4}}.jpg', row['image'])
            assert row['part'] == 'train' if parts[row['vehicle']] == 'train' else row['part'] in ('query', 'gallery')
            assert max(image.size) <= 64
            assert 0 <= float(row['left']) < float(row['right']) <= image.width
            assert 0 <= float(row['top']) < float(row['bottom']) <= image.height
            assert 8 <= float(row['altitude']) <= 120
            assert 15 <= float(row['pitch']) <= 90
            assert 0 < float(row['visible']) <= 1

    def test_the_description_holds_the_command(self, rendered, tmp_path):
        about = json.loads((rendered / 'dataset.json').read_text())['description']
        words = re.search('`timm-dpa (.*)`', about)[1].split()
        assert words == ['synth', *OPTIONS]
        assert main([*words, '--out', str(tmp_path / 'again'), '--workers', '1']) == 0
        assert listing(tmp_path / 'again') == listing(rendered)

    def test_a_flight_is_one_place_in_one_light(self, rendered):
        flights = {}
        for row in table(rendered / 'images.csv'):
            flights.setdefault(row['camera'], set()).add((row['place'], row['weather'], row['sun_height']))
        assert len(flights) > 6
        assert all(len(found) == 1 for found in flights.values())

    def test_models_and_flights_are_held_out_as_a_whole(self, rendered):
        for file, column, parts in (
            ('vehicles.csv', 'model', [{'train'}, {'test'}]),
            ('images.csv', 'camera', [{'train'}, {'query', 'gallery'}]),
        ):
            train, test = ({row[column] for row in table(rendered / file) if row['part'] in part} for part in parts)
            assert train
            assert test
            assert not train & test

    @pytest.mark.parametrize(('share', 'held_out'), [(0, 0), (0.25, 50), (0.5, 100), (1, 200)])
    def test_share_of_the_test(self, share, held_out):
        assert len(Plan(1000, test_share=share).test_models()) == held_out

    def test_other_seed_gives_other_vehicles(self, rendered, tmp_path):
        other = Plan(2, 5, seed=4, sizes=(24, 64), cameras=3, flights=12)
        found = listing(render_data_set(tmp_path / 'other', other, workers=1))
        assert len(found) == 10 + 4
        assert not set(found.values()) & set(listing(rendered).values())

    def test_contact_sheet(self, rendered, tmp_path):
        with Image.open(contact_sheet(rendered, PLAN, tmp_path / 'sheet.png', rows=5, columns=3, cell=32)) as sheet:
            assert sheet.size == (118 + 3 * 36, 5 * 36)
            pixels = np.asarray(sheet).astype(int)
        for row in range(5):
            for column in range(3):
                cell = pixels[row * 36 : row * 36 + 32, 118 + column * 36 :][:, :32]
                path = rendered / PLAN.shots(row)[column][2]
                with Image.open(path) as image:
                    # the picture lies in the middle of its cell; some are long and narrow
                    wide, high = (32 * side / max(image.size) for side in image.size)
                    left, top = int((32 - wide) / 2 + 0.25 * wide), int((32 - high) / 2 + 0.25 * high)
                    inner = cell[top : top + max(1, int(high / 2)), left : left + max(1, int(wide / 2))]
                    assert np.abs(inner.mean() - np.asarray(image).mean()) < 60
                assert cell.std() > 5


class TestInterruptions:
    @pytest.mark.parametrize('way', ['kill -9', pytest.param('Ctrl-C', marks=pytest.mark.slow)])
    def test_the_same_command_goes_on(self, rendered, tmp_path, way):
        out = tmp_path / 'set'
        command = [sys.executable, '-m', 'timm_dpa.cli', 'synth', '--out', str(out), *OPTIONS, '--workers', '2']
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
        try:
            until = time.monotonic() + 120
            while not list((out / '.synth').glob('*.json')) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            if way == 'kill -9':
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGINT)
            # the pipe is open until the last process has ended
            errors = process.communicate(timeout=60)[1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if way == 'Ctrl-C':
            assert process.returncode == 130
            assert errors == 'timm-dpa synth: interrupted; rerun the command to resume\n'
        assert not (out / 'dataset.json').exists()
        before = {path: path.stat().st_mtime_ns for path in out.rglob('*.jpg')}
        finished = [json.loads(path.read_text()) for path in (out / '.synth').glob('*.json')]
        assert 1 <= len(finished) < 16
        # two processes make what one does
        assert listing(render_data_set(out, PLAN, workers=1)) == listing(rendered)
        assert all((out / row[0]).stat().st_mtime_ns == before[out / row[0]] for rows in finished for row in rows)

    def test_lost_and_empty_images_are_rendered_again(self, rendered, copied):
        lost, empty = sorted(copied.rglob('*.jpg'))[5:40:20]
        lost.unlink()
        empty.write_bytes(b'')
        (copied / 'dataset.json').unlink()
        assert listing(render_data_set(copied, PLAN, workers=1)) == listing(rendered)

    def test_a_finished_set_is_left_alone(self, copied):
        before = {path: path.stat().st_mtime_ns for path in copied.rglob('*')}
        render_data_set(copied, PLAN)
        assert {path: path.stat().st_mtime_ns for path in copied.rglob('*')} == before


class TestDifficulty:
    @pytest.mark.slow
    def test_colors_alone_do_not_find_them(self):
        """Of fewer vehicles than the default, which makes an easier gallery."""
        script = [sys.executable, str(ROOT / 'benchmarks' / 'synth_difficulty.py')]
        done = subprocess.run(
            [*script, '--ids', '120', '--images-per-id', '12'], capture_output=True, text=True, check=True, timeout=900
        )
        scores = re.findall(r'mAP +([\d.]+) % ', done.stdout)
        assert len(scores) == 2
        assert 5 < float(scores[0]) < 40


class TestWrongUse:
    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            (['--ids', '1'], 'ids must be at least 2'),
            (['--images-per-id', '3'], 'images_per_id must be at least 6'),
            (['--images-per-id', '7'], 'images_per_id must be at least 8 (a query by each camera and two to find)'),
            (['--cameras', '1'], 'cameras must be at least 2'),
            (['--flights', '11'], 'flights must be in 12..99'),
            (['--degradation', '-1'], 'degradation must be in 0..4'),
            (['--preview', 'sheet'], '--preview sheet: the name must end in .png or .jpg'),
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
        assert main(['synth', '--out', str(rendered), '--ids', '4']) == 2
        assert 'holds a data set with another ids' in capsys.readouterr().err
        assert listing(rendered) == before
        (tmp_path / 'mine.txt').touch()
        assert main(['synth', '--out', str(tmp_path), '--ids', '4']) == 2
        assert 'name a new or empty folder' in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']

    def test_a_folder_of_the_time_before_clean_was_dropped(self, copied):
        settings = json.loads((copied / 'synth.json').read_text())
        (copied / 'synth.json').write_text(json.dumps({**settings, 'clean': False}))
        before = listing(copied)
        assert listing(render_data_set(copied, PLAN)) == before
        (copied / 'synth.json').write_text(json.dumps({**settings, 'clean': True}))
        with pytest.raises(FileExistsError, match='another clean'):
            render_data_set(copied, PLAN)

    def test_of_another_version(self, copied, capsys):
        settings = json.loads((copied / 'synth.json').read_text())
        (copied / 'synth.json').write_text(json.dumps({**settings, 'version': 0}))
        assert main(['synth', '--out', str(copied), *OPTIONS]) == 2
        errors = capsys.readouterr().err
        assert errors.count('\n') == 1
        assert 'rendered by version 0 of the renderer' in errors

    def test_without_the_extra(self, tmp_path):
        """Training goes without; rendering says what to install."""
        code = """import sys
sys.modules['embreex'] = None  # cannot be imported
import timm_dpa.train.data.transforms
from timm_dpa.cli.main import main
sys.exit(main())"""
        done = subprocess.run(
            [sys.executable, '-c', code, 'synth', '--out', 'set'], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr == "timm-dpa synth: rendering needs embreex: pip install 'timm-dpa[synth]'\n"
        assert not list(tmp_path.iterdir())
