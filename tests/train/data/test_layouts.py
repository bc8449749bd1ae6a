"""Published layouts on disk, and trees that are something else."""

import subprocess
import sys

import pytest

from tests.support import layouts
from tests.train.data.test_datasets import names, owners, write_csv
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.layouts import LAYOUTS
from timm_dpa.train.data.query_gallery import check_evaluable, pick_query_gallery


def write_lists(folder, lists: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (folder / name).write_text('\n'.join(lines) + '\n')


def market1501(root):
    """Two identities to train, two to test by cameras 1 and 6, junk, distractors, and a folder that is not read."""
    images = [
        f'bounding_box_train/{v}_c{c}s1_000{n}51_01.jpg' for v in ('0002', '0007') for c in (1, 2) for n in (1, 2)
    ]
    images += [f'query/{v}_c{c}s1_000451_00.jpg' for v in ('0001', '0003') for c in (1, 6)]
    images += [
        f'bounding_box_test/{v}_c{c}s2_000{n}01_03.jpg' for v in ('0001', '0003') for c in (1, 6) for n in (1, 2)
    ]
    images += [f'bounding_box_test/-1_c3s1_00{n}_02.jpg' for n in range(3)]
    images += [f'bounding_box_test/0000_c4s3_00{n}_02.jpg' for n in range(5)]
    images += ['gt_bbox/0001_c1s1_001051_00.jpg']
    return layouts.write_images(root, images)


def vehicleid(root):
    test = {'small': 800, 'medium': 1600}
    lists = {'train_list.txt': ['0000001 5', '0000002 5', '0000003 9', '0000004 9']}
    for count in test.values():
        lists[f'test_list_{count}.txt'] = [f'000001{n} {v}' for v, ns in ((7, (0, 1)), (8, (2, 3, 4))) for n in ns]
    lists['test_list_1600.txt'] += ['0000015 6', '0000016 6']
    write_lists(root / 'train_test_split', lists)
    write_lists(root / 'attribute', {'color_attr.txt': ['5 1']})
    return layouts.write_images(root, [f'image/{n:07d}.jpg' for n in (*range(1, 5), *range(10, 17))])


def veri_wild(root):
    cameras = {'00001/000001': 1, '00001/000002': 4, '00002/000003': 2, '00002/000004': 3}
    cameras |= {f'0003{v}/00001{v}{c}': 10 + c for v in range(3) for c in range(3)}
    rows = [f'{name};{camera};2018-03-11 10:00:00;Sedan;Audi;white' for name, camera in cameras.items()]
    tested = sorted(name for name in cameras if name.startswith('0003'))
    write_lists(
        root / 'train_test_split',
        {
            'vehicle_info.txt': ['id/image;Camera ID;Time;Model;Type;Color', *rows],
            'train_list.txt': sorted(set(cameras) - set(tested)),
            'test_3000_query.txt': tested[::3],
            'test_3000.txt': [name for k, name in enumerate(tested) if k % 3],
        },
    )
    return layouts.write_images(root, [f'images/{name}.jpg' for name in cameras])


def msmt17(root, folders=('train', 'test')):
    train = [f'{v}/{v}_{n:03d}_{c:02d}_0303morning_0015_0.jpg' for v in ('0000', '0001') for n, c in ((0, 1), (1, 14))]
    test = [
        f'{v}/{v}_{n:03d}_{c:02d}_0113noon_0844_0.jpg' for v in ('0000', '0001') for n, c in ((0, 1), (1, 5), (2, 5))
    ]
    write_lists(
        root,
        {
            'list_train.txt': [f'{name} {int(name[:4])}' for name in train],
            'list_val.txt': [],
            'list_query.txt': [f'{name} {int(name[:4])}' for name in test[::3]],
            'list_gallery.txt': [f'{name} {int(name[:4])}' for k, name in enumerate(test) if k % 3],
        },
    )
    for folder, images in zip(folders, (train, test), strict=True):
        layouts.write_images(root / folder, images)
    return root


def aicity(root, labeled=('train', 'query', 'test')):
    parts = {
        'train': [(f'{n:06d}.jpg', f'{n // 2:04d}', f'c{n % 2 + 1:03d}') for n in range(4)],
        'query': [(f'{n:06d}.jpg', f'{n + 90:04d}', 'c010') for n in range(2)],
        'test': [(f'{n:06d}.jpg', f'{n // 2 + 90:04d}', f'c{n % 2 + 11:03d}') for n in range(4)],
    }
    for part, rows in parts.items():
        layouts.write_images(root, [f'image_{part}/{name}' for name, _, _ in rows])
        items = [f'<Item imageName="{name}" vehicleID="{v}" cameraID="{c}" />' for name, v, c in rows]
        if part not in labeled:
            items = [f'<Item imageName="{name}" cameraID="{c}" />' for name, _, c in rows]
        text = '<?xml version="1.0" encoding="gb2312"?>\n<TrainingImages Version="1.0"><Items number="4">\n'
        (root / f'{part}_label.xml').write_text(text + '\n'.join(items) + '</Items></TrainingImages>')
    return root


class TestPublished:
    @pytest.mark.parametrize('layout', ['auto', 'market1501'])
    def test_market1501(self, tmp_path, layout):
        data = load_data(market1501(tmp_path / 'Market-1501-v15.09.15').parent, layout)
        assert (data.layout, data.protocol, data.root.name) == ('market1501', 'fixed', 'Market-1501-v15.09.15')
        assert (len(data.train), len(data.query), len(data.gallery)) == (8, 4, 13)
        assert set(data.query.camids) == {1, 6}
        assert set(owners(data, data.query)) == {'0001', '0003'}
        assert pick_query_gallery(data).exclude_same_camera
        assert any('4 images are left out: 3 junk (identity -1) and 1 that are not' in note for note in data.notes)
        assert any('5 distractors' in note for note in data.notes)

    def test_distractors_are_nobodys_match_in_any_protocol(self, tmp_path):
        data = load_data(market1501(tmp_path))
        for protocol in ('fixed', 'vru', 'first-last', 'cross-camera'):
            query, gallery, _ = check_evaluable(data, protocol)
            assert sum(name.startswith('0000') for name in names(gallery)) == 5
            assert not any(name.startswith('0000') for name in names(query))

    def test_duke(self, tmp_path):
        market1501(tmp_path)
        for path in sorted(tmp_path.rglob('*.jpg')):
            path.rename(path.with_name(path.name.replace('s1_', '_f').replace('s2_', '_f').replace('s3_', '_f')))
        data = load_data(tmp_path)
        assert (data.layout, len(data.train), len(data.query), set(data.query.camids)) == ('market1501', 8, 4, {1, 6})

    @pytest.mark.parametrize(('subset', 'images'), [('small', 5), ('medium', 7)])
    def test_vehicleid(self, tmp_path, subset, images):
        data = load_data(vehicleid(tmp_path), subset=subset)
        assert (data.layout, data.protocol, data.has_cameras) == ('vehicleid', 'vru', False)
        assert (len(data.train), len(data.test)) == (4, images)
        assert owners(data, data.train) == ['5', '5', '9', '9']

    def test_veri_wild(self, tmp_path):
        data = load_data(veri_wild(tmp_path))
        assert (data.layout, data.protocol, data.has_cameras) == ('veri_wild', 'fixed', True)
        assert (len(data.train), len(data.query), len(data.gallery)) == (4, 3, 6)
        assert data.train.camids.tolist() == [1, 4, 2, 3]
        assert owners(data, data.query) == ['00030', '00031', '00032']
        with pytest.raises(ValueError, match=r'no train_test_split/test_5000_query\.txt'):
            load_data(tmp_path, subset='medium')

    @pytest.mark.parametrize('folders', [('train', 'test'), ('mask_train_v2', 'mask_test_v2')])
    def test_msmt17(self, tmp_path, folders):
        data = load_data(msmt17(tmp_path, folders))
        assert (data.layout, data.protocol) == ('msmt17', 'fixed')
        assert (len(data.train), len(data.query), len(data.gallery)) == (4, 2, 4)
        assert data.train.camids.tolist() == [1, 14, 1, 14]
        assert data.shared_identities == []  # both sides count from 0

    def test_aicity(self, tmp_path):
        data = load_data(aicity(tmp_path))
        assert (data.layout, data.protocol) == ('aicity', 'fixed')
        assert (len(data.train), len(data.query), len(data.gallery)) == (4, 2, 4)
        assert data.gallery.camids.tolist() == [11, 12, 11, 12]
        assert owners(data, data.query) == ['0090', '0091']

    def test_aicity_without_labels_of_the_test(self, tmp_path):
        data = load_data(aicity(tmp_path, labeled=('train',)))
        assert (len(data.train), len(data.test)) == (4, 0)
        assert any('image_query, image_test without labels' in note for note in data.notes)

    def test_images_that_a_list_names_must_exist_once(self, tmp_path):
        vehicleid(tmp_path)
        (tmp_path / 'image/0000002.jpg').unlink()
        with pytest.raises(FileNotFoundError, match=r'train_list\.txt, line 2: no image 0000002 \(1 missing'):
            load_data(tmp_path)

    @pytest.mark.parametrize(
        ('marks', 'name'),
        [
            (['bbox_train/0001/a.jpg', 'bbox_test/0001/a.jpg'], 'MARS'),
            (['cam_a/001.jpg', 'cam_b/001.jpg'], 'VIPeR'),
            (['cars_train/1.jpg', 'cars_test/1.jpg'], 'Stanford Cars'),
            (['images/a.jpg', 'labels/a.txt'], 'COCO or YOLO'),
            (['frames/a.jpg', 'annotations/a.mat'], 'PRW'),
        ],
    )
    def test_refused_by_name(self, tmp_path, marks, name):
        layouts.write_images(tmp_path, marks)
        with pytest.raises(ValueError, match=f'looks like {name}.* is not read.*path,pid'):
            load_data(tmp_path)

    @pytest.mark.parametrize('make', [market1501, vehicleid, msmt17, layouts.vru, layouts.veri_uav])
    @pytest.mark.parametrize('layout', ['folders', 'flat'])
    def test_another_layout_that_is_asked_for_is_refused(self, tmp_path, make, layout):
        with pytest.raises(ValueError, match=f'this is the layout .*, not {layout}'):
            load_data(make(tmp_path), layout)


class TestImplausible:
    """Two-level trees and names whose first part is no vehicle."""

    @pytest.mark.parametrize(
        'folders',
        [
            ['train', 'val'],
            ['training_set', 'test_set', 'more'],
            ['val2017', 'train2017'],
            ['query', 'reference'],
            ['images', 'pictures'],
            ['cam1', 'cam2', 'cam3'],
            ['camera_01', 'camera_02'],
            ['Image_Test', 'Image_Train_2'],
            ['car', 'truck', 'bus'],
            ['Sedans', 'SUVs'],
            ['seq_01', 'seq_02', 'seq_03'],
            ['probe', 'distractors'],
        ],
    )
    def test_folders_that_are_no_vehicles(self, tmp_path, folders):
        layouts.vehicle_folders(tmp_path, dict.fromkeys(folders, 4))
        with pytest.raises(ValueError, match=r'vehicles.*the folder holds .*path,pid') as caught:
            load_data(tmp_path)
        assert sorted(folders)[0] in str(caught.value) or sorted(folders)[-1] in str(caught.value)

    @pytest.mark.parametrize('layout', ['auto', 'folders'])
    def test_few_folders_with_very_many_images(self, tmp_path, layout):
        layouts.vehicle_folders(tmp_path, dict.fromkeys(['north', 'east', 'south', 'west'], 60))
        if layout == 'folders':  # who asks for it gets it
            assert len(load_data(tmp_path, layout).identities) == 4
            return
        with pytest.raises(ValueError, match=r'4 folders with 240 images would be 4 vehicles, east.*layout folders'):
            load_data(tmp_path)

    def test_parts_are_no_vehicles_whatever_is_asked_for(self, tmp_path):
        layouts.vehicle_folders(tmp_path, {'gallery_a': 4, 'query_a': 4})
        with pytest.raises(ValueError, match='parts of a data set'):
            load_data(tmp_path, 'folders')

    def test_names_in_a_folder_that_name_several(self, tmp_path):
        images = [f'{place}/{v:04d}_c{c}_000.jpg' for place in ('one', 'two') for v in range(5) for c in (1, 2)]
        with pytest.raises(ValueError, match='the folder one would be one vehicle, but its images are called after 5'):
            load_data(layouts.write_images(tmp_path, images))

    def test_names_in_a_folder_that_name_its_vehicle(self, tmp_path):
        images = [f'{v:04d}/{v:04d}_c{c}_000.jpg' for v in range(5) for c in (1, 2)]
        assert len(load_data(layouts.write_images(tmp_path, images)).identities) == 5

    @pytest.mark.parametrize(
        'images',
        [
            ['cam1_001.jpg', 'cam1_002.jpg', 'cam2_001.jpg', 'cam2_002.jpg'],
            ['IMG_001.jpg', 'IMG_002.jpg', 'DSC_001.jpg', 'DSC_002.jpg'],
            ['20240503_1210.jpg', '20240503_1211.jpg', '20240504_1210.jpg', '20240504_1211.jpg'],
            ['train_1.jpg', 'train_2.jpg', 'test_1.jpg', 'test_2.jpg'],
            [f'{k:05d}_crop.jpg' for k in range(12)],
        ],
    )
    def test_names_that_begin_with_something_else(self, tmp_path, images):
        with pytest.raises(ValueError, match='vehicle'):
            load_data(layouts.write_images(tmp_path, images))

    @pytest.mark.parametrize('vehicles', [2, 3])
    def test_too_few_vehicles_to_split(self, tmp_path, vehicles):
        layouts.vehicle_folders(tmp_path, {f'v{k}': 5 for k in range(vehicles)})
        data = load_data(tmp_path)
        assert (len(data.train), len(data.test)) == (5 * vehicles, 0)
        assert any('all images are for training' in note for note in data.notes)
        assert load_data(tmp_path, test_fraction=0).notes == []
        with pytest.raises(ValueError, match='no test images'):
            check_evaluable(data)

    def test_vehicles_with_plain_names_are_read(self, tmp_path):
        names = [
            'car_001',
            'Truck 7',
            'vehicle-12',
            'bus3',
            'v1',
            '0001',
            'AB-123-CD',
            'testarossa',
            'valentina',
            'rot',
        ]
        data = load_data(layouts.vehicle_folders(tmp_path, dict.fromkeys(names, 3)))
        assert sorted(names) == data.identities


class TestIdentities:
    def load(self, tmp_path, rows, columns='path,pid,camid,split'):
        for row in rows:
            layouts.write_image(tmp_path / row.split(',')[0])
        return load_data(write_csv(tmp_path, columns + '\n' + '\n'.join(rows) + '\n'), test_fraction=0)

    def test_floats_of_pandas(self, tmp_path):
        rows = [
            '1.jpg,1.0,0.0,train',
            '2.jpg,1,0,train',
            '3.jpg,2.00,1,train',
            '4.jpg,1e3,1.0,train',
            '5.jpg,-1.0,2,train',
        ]
        data = self.load(tmp_path, [*rows, '6.jpg,-1,2,train', '7.jpg,-1.,2,train', '8.jpg,1.5,2,train'])
        assert owners(data, data.train) == ['1', '1', '2', '1e3', '1.5']
        assert data.train.camids.tolist() == [0, 0, 1, 1, 2]
        assert any('3 junk (identity -1)' in note for note in data.notes)
        assert not any('leading zeros' in note for note in data.notes)

    def test_leading_zeros(self, tmp_path, caplog):
        data = self.load(tmp_path, ['1.jpg,0001', '2.jpg,0001.0', '3.jpg,2', '4.jpg,2.0'], 'path,pid')
        assert owners(data, data.train) == ['0001', '0001', '2', '2']
        assert not caplog.records
        data = self.load(tmp_path, ['1.jpg,0001', '2.jpg,1', '3.jpg,1.0', '4.jpg,0002'], 'path,pid')
        assert owners(data, data.train) == ['0001', '1', '1', '0002']
        assert '1 identities are the same number with and without leading zeros' in caplog.text
        assert '0001 and 1' in caplog.text

    @pytest.mark.parametrize('missing', ['nan', 'NaN', 'None', '<NA>', 'null', ' '])
    def test_missing_values_are_no_identity(self, tmp_path, missing):
        with pytest.raises(ValueError, match='line 3: no pid'):
            self.load(tmp_path, ['1.jpg,a', f'2.jpg,{missing}', '3.jpg,b'], 'path,pid')

    def test_two_columns_of_one_name(self, tmp_path):
        with pytest.raises(ValueError, match='two columns are called pid'):
            self.load(tmp_path, ['1.jpg,a,b', '2.jpg,b,a'], 'path,pid,pid')

    def test_vru_lists(self, tmp_path):
        layouts.vru(tmp_path)
        table = tmp_path / 'train_test_split/train_list.txt'
        table.write_text('a1 90.0\na2 90\na3 91\na4 91.0\n')
        data = load_data(tmp_path)
        assert owners(data, data.train) == ['90', '90', '91', '91']


def test_choices_of_the_command_line_import_nothing_heavy():
    code = (
        'import sys\n'
        'sys.argv = ["timm-dpa"]\n'
        'from timm_dpa.train.data.layouts import LAYOUTS, SUBSETS\n'
        'from timm_dpa.train.data.protocols import PROTOCOLS\n'
        'from timm_dpa.train.evaluation.tables import METRICS, TABLES\n'
        'print([name for name in ("torch", "numpy", "PIL", "timm") if name in sys.modules])\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
    assert 'market1501' in LAYOUTS
