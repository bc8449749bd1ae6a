"""Marks are kept, and become training data."""

import csv
import io
import zipfile

import pytest
from PIL import Image

from timm_dpa.gallery.page.feedback import Feedback, export_feedback
from timm_dpa.gallery.page.handlers import Wanted
from timm_dpa.gallery.page.scenes import Scene
from timm_dpa.gallery.rows import GalleryRow
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.toy_vehicles import draw_vehicle


def rows(**tracks: str) -> dict[str, GalleryRow]:
    return {key: GalleryRow(key, track=track, camera='c1') for key, track in tracks.items()}


def exported(feedback, known, out):
    done = export_feedback(feedback, known, lambda row: Image.new('RGB', (20, 20)), out)
    with zipfile.ZipFile(out) as archive:
        table = list(csv.DictReader(io.StringIO(archive.read('feedback.csv').decode())))
    return done, table


def groups(table) -> list[int]:
    """Sizes of the vehicles."""
    pids = [row['pid'] for row in table]
    return sorted(pids.count(pid) for pid in set(pids))


class TestMarks:
    def test_they_can_be_changed_and_taken_back(self):
        feedback = Feedback()
        feedback.mark('q', 'a', True, 0.9)
        feedback.mark('q', 'b', True, 0.8)
        feedback.mark('q', 'a', False, 0.9)
        assert feedback.marked('q') == {'a': False, 'b': True}
        feedback.mark('q', 'a', None, 0.9)
        assert feedback.marked('q') == {'b': True}

    def test_they_survive_in_their_folder(self, tmp_path):
        feedback = Feedback(tmp_path / 'marks')
        picture = draw_vehicle(0, 0)
        name = feedback.add_query(picture)
        feedback.mark(name, 'a, "b"\n', True, 0.5)
        again = Feedback(tmp_path / 'marks')
        assert again.marks == feedback.marks
        assert Image.open(io.BytesIO(again.picture(name))).tobytes() == picture.tobytes()

    def test_a_damaged_table_is_named(self, tmp_path):
        (tmp_path / 'marks.csv').write_text('query,key,right,similarity,time\na,b,perhaps,0.5,now\n')
        with pytest.raises(ValueError, match=r'marks.csv: is no table of marks \(right must be'):
            Feedback(tmp_path)


class TestVehicles:
    def test_right_marks_join_and_wrong_ones_do_not(self, tmp_path):
        feedback = Feedback()
        for query, key, right in [('q', 'a', True), ('a', 'b', True), ('q', 'c', False)]:
            feedback.mark(query, key, right, 0.5)
        done, table = exported(feedback, rows(q='', a='', b='', c=''), tmp_path / 'out.zip')
        assert groups(table) == [1, 3]
        assert (done.images, done.vehicles, done.missing, done.contradicting) == (4, 2, 0, 0)

    def test_a_track_and_a_known_vehicle_are_one_vehicle(self, tmp_path):
        feedback = Feedback()
        for key in ('a', 'b', 'c', 'd'):
            feedback.mark('q', key, False, 0.5)
        known = rows(q='', a='t', b='t', c='', d='')
        known['c'].vehicle = known['d'].vehicle = 5
        assert groups(exported(feedback, known, tmp_path / 'out.zip')[1]) == [1, 2, 2]

    def test_vehicles_whose_marks_contradict_each_other_are_left_out(self, tmp_path):
        feedback = Feedback()
        for query, key, right in [('q', 'a', True), ('a', 'b', True), ('q', 'b', False), ('x', 'y', True)]:
            feedback.mark(query, key, right, 0.5)
        done, table = exported(feedback, rows(q='', a='', b='', x='', y=''), tmp_path / 'out.zip')
        assert (groups(table), done.contradicting) == ([2], 1)

    def test_images_that_are_gone_are_counted(self, tmp_path):
        feedback = Feedback()
        feedback.mark('q', 'a', True, 0.5)
        feedback.mark('q', 'gone', True, 0.5)
        done, table = exported(feedback, rows(q='', a=''), tmp_path / 'out.zip')
        assert (done.images, done.missing) == (len(table), 1) == (2, 1)

    def test_without_marks(self, tmp_path):
        with pytest.raises(ValueError, match=r'^nothing is marked yet'):
            exported(Feedback(), {}, tmp_path / 'out.zip')
        assert not (tmp_path / 'out.zip').exists()


def test_train_reads_what_the_page_exports(page, tmp_path):
    """A query that was uploaded and one of the gallery: right and wrong matches of both."""
    feedback = Feedback()
    queries = [page.query_scene(Scene(draw_vehicle(1, 20), 'car.png'), None), page.query_row('3_0.png')]
    for query in queries:
        results = page.search(query, Wanted(top=20))
        vehicle = query.key[:1] or '1'
        for match in results.matches:
            said = 'right' if match.row.key.startswith(vehicle) else 'wrong'
            page.mark(feedback, query, results, match.row.key, said)
    path, done = page.export(feedback, tmp_path)
    assert path.parent.parent == tmp_path
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / 'data')
    data = load_data(tmp_path / 'data' / 'feedback.csv')
    assert data.layout == 'csv'
    assert len(data.train.paths) == done.images
    assert len(set(data.train.pids.tolist())) == done.vehicles
    uploaded = [pid for path, pid in zip(data.train.paths, data.train.pids, strict=True) if path.endswith('.png')]
    assert len(uploaded) == 1
    right = {key for mark in feedback.marks if mark.right for key in (mark.query, mark.key) if key.startswith('1_')}
    tracks = {int(key[2]) // 2 for key in right}
    seen = {key for mark in feedback.marks for key in (mark.query, mark.key) if key.startswith('1_')}
    assert right
    assert list(data.train.pids).count(uploaded[0]) == 1 + sum(int(key[2]) // 2 in tracks for key in seen)


def test_a_match_that_is_not_shown_cannot_be_marked(page):
    query = page.query_row('0_0.png')
    results = page.search(query, Wanted(top=3))
    for key, said, message in [
        ('no.png', 'right', 'no longer shown'),
        (results.matches[0].row.key, 'perhaps', 'right or wrong'),
    ]:
        with pytest.raises(ValueError, match=message):
            page.mark(Feedback(), query, results, key, said)
