"""Rendered tracks: what changes from frame to frame, geometry, files, the protocol they bring, and wrong use."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timm_dpa.cli.main import main
from timm_dpa.synth.dataset import render_data_set
from timm_dpa.synth.plan import Plan
from timm_dpa.synth.preview import contact_sheet
from timm_dpa.synth.render.tracing import Scene
from timm_dpa.synth.vehicles.build import build_solid
from timm_dpa.synth.world.assets import AssetCache
from timm_dpa.synth.world.tracks.clips import sample_clip
from timm_dpa.synth.world.tracks.frames import frame_shot
from timm_dpa.synth.world.tracks.track import sample_track
from timm_dpa.train.data.check import check_data
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.provenance import describe_data
from timm_dpa.train.data.query_gallery import pick_query_gallery

PLAN = Plan(5, 10, seed=4, sizes=(20, 100), siblings=1, flights=4, test_share=0.4, tracks=True)


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def by_vehicle(folder: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    with (folder / 'images.csv').open(encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            found.setdefault(row['vehicle'], []).append(row)
    return found


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def wrapped(degrees: np.ndarray) -> np.ndarray:
    return (degrees + 180) % 360 - 180


@pytest.fixture(scope='module')
def rendered(tmp_path_factory) -> Path:
    """By one process; tests read it only."""
    return render_data_set(tmp_path_factory.mktemp('tracks') / 'set', PLAN, workers=1)


@pytest.fixture(scope='module')
def tracks() -> list:
    """(clip, vehicle, track) of many vehicles, without a picture."""
    plan = Plan(24, 20, siblings=2, flights=8, test_share=0, tracks=True)
    found = []
    for number in range(plan.ids):
        clip = sample_clip(plan.seed, plan.flights_of(number)[0], 1.0)
        solid, _ = build_solid(plan.identity(number))
        rng = np.random.default_rng([number, 1])
        found.append((clip, solid, sample_track(clip, solid, 20, (30, 300), rng)))
    return found


class TestChange:
    def test_is_small_from_frame_to_frame_and_large_from_end_to_end(self, tracks):
        turns, climbs, lights, colors = [], [], [], []
        for _, _, track in tracks:
            frames = track.frames
            course = np.rad2deg([f.spot[2] - f.azimuth for f in frames])
            height = np.array([f.eye[2] for f in frames])
            exposure = np.array([f.exposure for f in frames])
            warmth = np.array([f.sensor.balance[0] / f.sensor.balance[2] for f in frames])
            assert np.abs(np.diff(course)).max() < 45
            assert np.abs(np.diff(np.log(height))).max() < 0.4
            assert np.abs(np.diff(np.log(exposure))).max() < 0.2
            assert np.abs(np.diff([f.sensor.haze for f in frames])).max() < 0.15
            assert np.abs(np.diff(np.rad2deg([[f.pitch, f.roll] for f in frames]), axis=0)).max() < 4
            assert (np.diff([f.time for f in frames]) > 0).all()
            turns.append(abs(course[-1] - course[0]))
            climbs.append(height[-1] / height[0])
            lights.append(abs(np.log(exposure[-1] / exposure[0])))
            colors.append(abs(np.log(warmth[-1] / warmth[0])))
        assert max(turns) > 180
        assert np.median(turns) > 60
        assert np.median(climbs) > 2
        assert min(climbs) < 1  # some come down
        assert min(lights) > 0.15
        assert min(colors) > 0.03

    def test_perfect_cameras_do_not_drift(self, tracks):
        clip, solid, _ = tracks[0]
        clean = sample_track(sample_clip(0, 1, 0.0), solid, 10, (30, 300), np.random.default_rng(0), 0.0)
        assert {(f.sensor.haze, f.sensor.gain, f.sensor.balance, f.sensor.lens) for f in clean.frames} == {
            (0.0, 1.0, (1.0, 1.0, 1.0), 0.0)
        }
        assert clip.flight.sensor.lens > 0

    def test_most_are_seen_from_above_and_off_the_axis_no_more_than_a_wide_lens_shows(self, tracks):
        pitches, angles = [], []
        for clip, solid, track in tracks:
            assets, solo = AssetCache(0), Scene([solid])
            for number in (0, 19):
                shot, off_axis = frame_shot(clip, track, number, solo, assets)
                pitches.append(shot.pitch)
                angles.append(off_axis)
        assert np.mean(np.array(pitches) > 60) > 0.6
        assert max(angles) < 50
        assert np.percentile(angles, 90) > 20

    def test_palms_trees_and_poles_stand_where_they_stood(self, tracks):
        """What a frame shows lies, in coordinates of the place, where the clip says."""
        seen = 0
        for clip, solid, track in tracks[:6]:
            assets = AssetCache(0)
            expected = []
            for each in clip.occluders:
                c, s = np.cos(each.turn), np.sin(each.turn)
                middle = assets.occluder(each.kind, each.index).points.mean(axis=0)[:2]
                expected.append(np.array([[c, -s], [s, c]]) @ middle + [each.x, each.y])
            for number in (0, 10, 19):
                shot, _ = frame_shot(clip, track, number, Scene([solid]), assets)
                x, y, course = track.frames[number].spot
                c, s = np.cos(course), np.sin(course)
                for name, other in zip(shot.names, shot.others, strict=True):
                    if name != 'neighbour':
                        where = np.array([[c, -s], [s, c]]) @ other.points.mean(axis=0)[:2] + [x, y]
                        assert np.linalg.norm(np.array(expected) - where, axis=1).min() < 1e-3
                        seen += 1
        assert seen > 10

    def test_the_sun_stays_in_its_direction_over_the_place(self, tracks):
        for clip, solid, track in tracks[:6]:
            for number in (0, 10, 19):
                shot, _ = frame_shot(clip, track, number, Scene([solid]), AssetCache(0))
                course = track.frames[number].spot[2]
                c, s = np.cos(course), np.sin(course)
                sun = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ shot.setting.light.sun
                assert np.allclose(sun, clip.flight.light.sun, atol=1e-5)


class TestGeometry:
    def test_heading_follows_the_path(self, rendered):
        for rows in by_vehicle(rendered).values():
            x, y, course = column(rows, 'x'), column(rows, 'y'), column(rows, 'course')
            driven = np.rad2deg(np.arctan2(np.diff(y), np.diff(x)))
            middle = (course[:-1] + course[1:]) / 2
            assert np.abs(wrapped(driven - middle)).max() < 8
            headings = column(rows, 'heading')
            turned = np.diff(course) - np.diff(column(rows, 'azimuth'))
            assert np.abs(wrapped(np.diff(headings) - turned)).max() < 0.4

    def test_size_is_focal_length_times_length_over_distance(self, rendered):
        with (rendered / 'vehicles.csv').open(encoding='utf-8', newline='') as file:
            lengths = {row['vehicle']: float(row['length']) for row in csv.DictReader(file)}
        checked = 0
        for vehicle, rows in by_vehicle(rendered).items():
            for row in rows:
                if float(row['pitch']) < 75 or float(row['off_axis']) > 20:
                    continue
                box = np.array([float(row['right']) - float(row['left']), float(row['bottom']) - float(row['top'])])
                heading = np.deg2rad(float(row['heading']))
                # a vehicle of this length and some 0.4 of it as width, seen from above at the height of its roof
                long = lengths[vehicle] * np.abs([np.sin(heading), np.cos(heading)])
                wide = 0.4 * lengths[vehicle] * np.abs([np.cos(heading), np.sin(heading)])
                expected = float(row['focal']) / (float(row['altitude']) - 1) * (long + wide)
                assert box.max() == pytest.approx(expected.max(), rel=0.22), row
                checked += 1
        assert checked > 5

    def test_crops_shrink_as_the_drone_climbs(self, rendered):
        climbing = 0
        for rows in by_vehicle(rendered).values():
            sizes = np.maximum(column(rows, 'width'), column(rows, 'height'))
            assert sizes.max() <= 100
            assert sizes.min() >= 16
            heights = column(rows, 'altitude')
            if heights[-1] > 1.5 * heights[0]:
                climbing += 1
                assert sizes[-3:].mean() < 0.8 * sizes[:3].mean()
        assert climbing >= 2


class TestFiles:
    def test_first_last_is_the_default_and_in_the_order_of_time(self, rendered):
        data = load_data(rendered)
        assert data.protocol == 'first-last'
        assert json.loads((rendered / 'dataset.json').read_text())['protocol'] == 'first-last'
        assert 'protocol' not in describe_data(data)
        query, gallery, exclude = pick_query_gallery(data)
        assert not exclude
        assert [Path(p).parent.name for p in query.paths] == ['image_query'] * 2
        assert all(int(Path(p).stem[-4:]) == 0 for p in query.paths)
        assert sorted(int(Path(p).stem[-4:]) for p in gallery.paths) == [6, 6, 7, 7, 8, 8, 9, 9]
        times = {row['image']: float(row['time']) for rows in by_vehicle(rendered).values() for row in rows}
        for pid in set(query.pids.tolist()):
            paths = [p for p, other in zip(gallery.paths, gallery.pids, strict=True) if other == pid]
            seconds = [times[Path(p).relative_to(rendered).as_posix()] for p in paths]
            assert seconds == sorted(seconds)
            assert seconds[0] > 0
        assert check_data(data).ready

    def test_layout_and_split(self, rendered):
        data = load_data(rendered)
        assert data.layout == 'veri_uav'
        assert (len(data.train), len(data.query), len(data.gallery)) == (30, 2, 18)
        for vehicle, rows in by_vehicle(rendered).items():
            assert len(rows) == 10
            assert len({row['camera'] for row in rows}) == 1
            assert len({(row['place'], row['weather']) for row in rows}) == 1
            assert [int(row['image'][-8:-4]) for row in rows] == list(range(10)), vehicle
            for row in rows:
                with Image.open(rendered / row['image']) as image:
                    assert image.size == (int(row['width']), int(row['height']))
        train = set(data.train.camids.tolist())
        assert not train & set(data.test.camids.tolist())

    def test_the_same_files_by_two_processes_and_by_the_recorded_command(self, rendered, tmp_path):
        words = PLAN.command.split()
        assert '--tracks' in words
        assert '--cameras' not in words
        assert main([*words[1:], '--out', str(tmp_path / 'again'), '--workers', '2']) == 0
        assert listing(tmp_path / 'again') == listing(rendered)

    def test_a_lost_frame_is_rendered_again(self, rendered, tmp_path):
        out = tmp_path / 'set'
        for name, content in listing(rendered).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        next(out.glob('image_train/*_0005.jpg')).unlink()
        (out / 'dataset.json').unlink()
        assert listing(render_data_set(out, PLAN, workers=1)) == listing(rendered)

    def test_preview_shows_whole_tracks(self, rendered, tmp_path):
        file = contact_sheet(rendered, PLAN, tmp_path / 'sheet.png', rows=2, columns=3, cell=40)
        with Image.open(file) as sheet:
            pixels = np.asarray(sheet).astype(int)
        for column_, number in enumerate((0, 4, 9)):
            path = rendered / PLAN.shots(0)[number][2]
            with Image.open(path) as image:
                scale = 40 / max(image.size)
                size = tuple(max(1, round(v * scale)) for v in image.size)
                method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
                small = np.asarray(image.convert('RGB').resize(size, method)).astype(int)
            top, left = (40 - size[1]) // 2, 118 + column_ * 44 + (40 - size[0]) // 2
            assert (pixels[top : top + size[1], left : left + size[0]] == small).all()


class TestProtocolOfADataSet:
    def test_an_unknown_one_is_an_error(self, rendered, tmp_path):
        out = tmp_path / 'set'
        for name, content in listing(rendered).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        about = json.loads((out / 'dataset.json').read_text())
        (out / 'dataset.json').write_text(json.dumps({**about, 'protocol': 'last-first'}))
        with pytest.raises(ValueError, match=r"dataset\.json: unknown protocol 'last-first'; choose fixed"):
            load_data(out)


class TestWrongUse:
    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            (['--images-per-id', '9'], 'images_per_id must be in 10..30'),
            (['--images-per-id', '31'], 'give --images-per-id 20'),
            (['--cameras', '6'], 'leave --cameras out'),
            (['--flights', '1'], 'flights must be in 2..99'),
        ],
    )
    def test_is_one_line(self, tmp_path, capsys, argv, message):
        assert main(['synth', '--tracks', '--out', str(tmp_path / 'out'), '--ids', '4', *argv]) == 2
        errors = capsys.readouterr().err
        assert errors.count('\n') == 1
        assert message in errors
        assert not (tmp_path / 'out').exists()
