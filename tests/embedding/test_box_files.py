"""Files of boxes: each format gives the same boxes and is told from the others; errors name file and line."""

import numpy as np
import pytest

from tests.support import sequences
from timm_dpa.embedding.box_files import choose_boxes, read_boxes
from timm_dpa.embedding.box_formats import BOX_FORMATS

FRAMES, TRACKS = range(1, 4), range(3)
ROWS = sequences.boxes(FRAMES, TRACKS)
#: frame, track, box of each row, whatever the format
EXPECTED = [(f, f'{t}', (x, y, x + w, y + h)) for f, t, x, y, w, h in ROWS]


def corners(row):
    _, _, x, y, w, h = row
    return (x, y, x + w, y, x + w, y + h, x, y + h)


def plain(rows):
    return [(row.frame, row.track, row.box) for row in rows]


def centers(rows, width: int):
    return [
        (f - 1, t, x + w / 2, y + h / 2, w, h, *[0.5] * 4, 2, 0.9, *['nan'] * (width - 12)) for f, t, x, y, w, h in rows
    ]


class TestFormats:
    @pytest.mark.parametrize(
        ('more', 'format'),
        [
            ((), 'mot'),
            ((0.7,), 'mot'),
            ((1, 3), 'mot'),
            ((1, 3, 0.5), 'mot'),
            ((0.9, -1, -1, -1), 'mot'),
            ((1, 2.5, 3.25, 0), 'mot'),
            ((1, 4, 0, 1), 'visdrone'),
            ((0.8, 4, -1, -1), 'visdrone'),
            ((2, 4, 1), 'uavdt'),
            ((3, 3, 2), 'uavdt'),
        ],
    )
    @pytest.mark.parametrize('separator', [',', ' '])
    def test_numbers(self, tmp_path, more, format, separator):
        path = sequences.write_rows(tmp_path / 'boxes.txt', ROWS, *more, separator=separator)
        found = read_boxes(path)
        assert found.format == format
        assert found.rows == read_boxes(path, format).rows
        assert plain(found.rows) == EXPECTED
        assert found.first_frame == 1

    @pytest.mark.parametrize('width', [14, 15])
    def test_geotrax_has_centers_and_counts_from_zero(self, tmp_path, width):
        found = read_boxes(sequences.write_rows(tmp_path / 'clip.txt', centers(ROWS, width)))
        assert (found.format, found.first_frame) == ('geotrax', 0)
        assert plain(found.rows) == [(f - 1, t, box) for f, t, box in EXPECTED]
        assert {(row.kind, row.score) for row in found.rows} == {('truck', 0.9)}

    def test_csv_of_pandas(self, tmp_path):
        # a column of ids with a gap becomes one of floats
        rows = [(f, f'{t}.0', *box, 'van', 0.25) for f, t, *box in ROWS] + [(4, '', 1.5, 2, 3, 4, '', '')]
        path = sequences.write_rows(tmp_path / 'boxes.csv', rows, header='frame,track_id,x,y,w,h,class_name,confidence')
        found = read_boxes(path)
        assert found.format == 'csv'
        assert plain(found.rows) == [*EXPECTED, (4, '', (1.5, 2, 4.5, 6))]
        assert [(row.kind, row.score) for row in found.rows][-2:] == [('van', 0.25), ('', 1.0)]
        assert [row.line for row in found.rows] == list(range(2, len(ROWS) + 3))

    def test_csv_with_corners_and_names_of_frames(self, tmp_path):
        rows = [(f'{row[0]:06d}.jpg', f'"car {row[1]}"', *corners(row)) for row in ROWS]
        header = 'frame,id,x1,y1,x2,y2,x3,y3,x4,y4'
        found = read_boxes(sequences.write_rows(tmp_path / 'boxes.csv', rows, header=header))
        assert [row.box for row in found.rows] == [corners(row) for row in ROWS]
        assert found.rows[0].frame == '000001'
        assert found.rows[-1].track == 'car 2'

    def test_dota_is_a_file_for_each_image(self, tmp_path):
        for frame in FRAMES:
            rows = [(*corners(row), 'small-vehicle', 0, row[1]) for row in ROWS if row[0] == frame]
            text = {'header': 'imagesource:GoogleEarth\ngsd:0.146'}
            sequences.write_rows(tmp_path / f'labels/P{frame:04d}.txt', rows, separator=' ', **text)
        found = read_boxes(tmp_path / 'labels')
        assert found.format == 'dota'
        assert {(row.frame, row.track, row.box) for row in found.rows} == {
            (f'P{row[0]:04d}', f'{row[1]}', corners(row)) for row in ROWS
        }
        alone = read_boxes(tmp_path / 'labels/P0001.txt')
        assert (alone.format, {row.frame for row in alone.rows}) == ('dota', {'P0001'})
        assert found.where(found.rows[0]).endswith('P0001.txt, line 3')

    def test_what_the_columns_say(self, tmp_path):
        box = (1, 5, 0, 0, 9, 9)
        lines = [(*box, 0, 0, 0, 0), (1, 6, 9, 0, 9, 9, 1, 9, 1, 0), (1, 7, 0, 9, 9, 9, 1, 1, 0, 2)]
        rows = read_boxes(sequences.write_rows(tmp_path / 'visdrone.txt', lines)).rows
        assert [(row.kind, row.ignored, row.visibility) for row in rows] == [
            ('ignored-region', True, 1.0),
            ('bus', False, 0.5),
            ('pedestrian', False, 0.0),
        ]
        rows = read_boxes(
            sequences.write_rows(tmp_path / 'uavdt.txt', [(*box, 3, 4, 3), (*box[:1], 6, *box[2:], 1, 2, 1)])
        ).rows
        assert [(row.kind, row.visibility) for row in rows] == [('bus', 0.7), ('car', 0.0)]
        rows = read_boxes(sequences.write_rows(tmp_path / 'mot.txt', [(*box, 0, 1, 0.25), (*box, 1, 3, -1)])).rows
        assert [(row.kind, row.ignored, row.visibility) for row in rows] == [('1', True, 0.25), ('3', False, None)]
        rows = read_boxes(sequences.write_rows(tmp_path / 'det.txt', [(1, -1, *box[2:], 0.4, -1, -1, -1)] * 2)).rows
        assert [(row.track, row.score) for row in rows] == [('', 0.4)] * 2


class TestRefused:
    def test_two_formats_fit(self, tmp_path):
        path = sequences.write_rows(tmp_path / 'gt.txt', ROWS, 1, 1, 1)
        with pytest.raises(ValueError, match=r'gt.txt: may be of the formats mot and uavdt; say which with --format'):
            read_boxes(path)
        assert read_boxes(path, 'uavdt').rows[0].kind == 'car'
        assert read_boxes(path, 'mot').rows[0].kind == '1'

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('', 'no boxes in this file'),
            ('\n \n', 'no boxes in this file'),
            ('1,1,2,2,5,5\n2,1,2,x,5,5\n', "line 2: expected numbers, not '2,1,2,x,5,5'"),
            ('1,1,2,2,5,5\n\n2,1,2,2,5\n', 'line 3: 5 columns, where the lines before have 6'),
            ('1,1,2,2\n', 'line 1: 4 columns; a box needs frame,id,x,y,w,h at least'),
            ('1.5,1,2,2,5,5\n', 'line 1: frame must be a whole number, not 1.5'),
            ('1,2.5,2,2,5,5\n', 'line 1: id must be a whole number'),
            ('1,1,nan,2,5,5\n', 'line 1: a number is not finite'),
            ('-1,1,2,2,5,5\n', 'line 1: frame -1; frames are numbered from 0 or 1'),
            ('1,1,2,2,5,5\n1,2,9,2,5,5\n1,1,2,9,5,5\n', 'line 3: frame 1 has track 1 in line 1 already'),
            ('1,1,2,2,5,5,1,1,1,1,1,1\n', '12 columns that fit no format of boxes; there are mot: '),
            ('frame,id,left,top\n1,1,2,3\n', 'columns frame,id,left,top; expected header frame'),
            ('frame,x,y,w,h\n1,2,3,4\n', 'line 2: 4 cells for 5 columns'),
            ('frame,x,y,w,h\n1,2,,4,5\n', "line 2: y must be a number, not ''"),
            ('frame,x,y,w,h\n,2,3,4,5\n', 'line 2: no frame'),
            ('frame,id,track,x,y,w,h\n1,1,1,2,3,4,5\n', 'columns id and track; keep one of them'),
            ('1 2 3 4 5 6 7 8 car 0\n1 2 3 4 5 6 7 car 0\n', 'line 2: expected DOTA'),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        path = tmp_path / 'boxes.txt'
        path.write_text(text)
        with pytest.raises(ValueError, match=r'boxes\.txt') as error:
            read_boxes(path)
        assert message in str(error.value)

    def test_bad_calls(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no such file of boxes'):
            read_boxes(tmp_path / 'none.txt')
        with pytest.raises(ValueError, match=r'no \.txt file of boxes'):
            read_boxes(tmp_path)
        with pytest.raises(ValueError, match='is a folder'):
            read_boxes(tmp_path, 'mot')
        with pytest.raises(ValueError, match='unknown format of boxes'):
            read_boxes(tmp_path, 'coco')
        (tmp_path / 'a.txt').write_bytes(b'\xff\xfe\x00')
        with pytest.raises(ValueError, match='not a text file of boxes'):
            read_boxes(tmp_path / 'a.txt')
        path = sequences.write_rows(tmp_path / 'b.txt', ROWS, 1)
        for format in set(BOX_FORMATS) - {'mot'}:
            with pytest.raises(ValueError, match=r'b\.txt'):
                read_boxes(path, format)


class TestChoice:
    @pytest.fixture
    def boxes(self, tmp_path):
        lines = [(*row, 1, (4, 9, 1)[row[1]], 0, row[1]) for row in sequences.boxes(range(1, 11), TRACKS)]
        return read_boxes(sequences.write_rows(tmp_path / 'v.txt', [*lines, (1, 9, 0, 0, 9, 9, 0, 4, 0, 0)]))

    def test_conditions(self, boxes):
        # by hand: tracks 0 (car, seen) and 1 (bus, half seen); 2 is a pedestrian, 9 is to be ignored
        assert {row.track for row in choose_boxes(boxes)} == {'0', '1'}
        assert {row.track for row in choose_boxes(boxes, min_visibility=0.6)} == {'0'}
        assert {row.frame for row in choose_boxes(boxes, every=4)} == {4, 8}
        assert {row.frame for row in choose_boxes(boxes, frames=range(3, 5))} == {3, 4}
        assert {row.track for row in choose_boxes(boxes, classes=['pedestrian', 'car'])} == {'0', '2'}
        assert choose_boxes(boxes, classes=['9']) == choose_boxes(boxes, classes=['bus'])

    def test_refused(self, boxes, tmp_path):
        with pytest.raises(ValueError, match='no box of the class plane; it has bus, car, pedestrian'):
            choose_boxes(boxes, classes=['plane'])
        for options in ({'every': 0}, {'min_visibility': 2}, {'min_visibility': np.nan}):
            with pytest.raises(ValueError, match='must be'):
                choose_boxes(boxes, **options)
        bare = read_boxes(sequences.write_rows(tmp_path / 'b.txt', ROWS))
        with pytest.raises(ValueError, match='without visibility'):
            choose_boxes(bare, min_visibility=0.5)
