"""Tables and data sets of other packages where images should be, and their columns, which are images."""

import numpy as np
import pytest
from PIL import Image

from tests.support.extractors import assert_same

pytestmark = pytest.mark.integrations


@pytest.fixture(scope='module')
def paths(moments, tmp_path_factory):
    folder = tmp_path_factory.mktemp('crops')
    found = [str(folder / f'{k}.png') for k in range(3)]
    for path, (x1, y1, x2, y2) in zip(found, moments[0].boxes.astype(int), strict=False):
        Image.fromarray(moments[0].frame[y1:y2, x1:x2]).save(path)
    return found


def test_pandas(extractor, paths):
    pandas = pytest.importorskip('pandas')
    table = pandas.DataFrame({'path': paths, 'x': np.arange(3)})
    with pytest.raises(TypeError, match=r"not DataFrame; pass its column .*: extractor\(df\['path'\]\)"):
        extractor(table)
    assert_same(extractor(table['path']), extractor(paths))


def test_datasets(extractor, paths):
    datasets = pytest.importorskip('datasets')
    features = datasets.Features({'image': datasets.Image(), 'label': datasets.Value('int64')})
    dataset = datasets.Dataset.from_dict({'image': paths, 'label': [0, 1, 2]}, features=features)
    with pytest.raises(TypeError, match=r"not Dataset; pass its column of images: extractor\(dataset\['image'\]\)"):
        extractor(dataset)
    with pytest.raises(TypeError, match=r"image 0 is of type dict; pass its images: item\['image'\]"):
        extractor(iter(dataset))
    assert_same(extractor(dataset['image']), extractor(paths))


def test_data_loader(extractor, paths):
    torch = pytest.importorskip('torch')
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(path).resize((64, 64)))) for path in paths])
    pixels = pixels.permute(0, 3, 1, 2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(pixels, torch.arange(3)), batch_size=2)
    with pytest.raises(
        TypeError, match=r'image 0 is of type list of Tensor, Tensor; .*\(image for image, \*_ in items'
    ):
        extractor(loader)
    assert_same(extractor(image for image, *_ in loader), extractor(pixels))
