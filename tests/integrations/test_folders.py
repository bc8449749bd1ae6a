"""Model folders as other packages read them: their embeddings are those of FeatureExtractor, to rounding."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.support.models import create, tiny
from timm_dpa import FeatureExtractor
from timm_dpa.hub.half import store_half
from timm_dpa.integrations.reid import to_reid
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.train.recipes.recipe import ModelRecipe
from timm_dpa.train.run.networks import save_model_folder

pytestmark = pytest.mark.integrations

SIZE = (64, 96)


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp('crops')
    paths = [folder / f'{identity}.png' for identity in range(8)]
    for identity, path in enumerate(paths):
        draw_vehicle(identity, view=0).save(path)
    return [str(path) for path in paths]


def make_folder(folder, kind):
    """Folders of a run, and one with weights stored as float16."""
    args = {}
    model = create('dpa_resnet18', **({'whiten': True} if 'whiten' in kind else {}))
    if 'options' in kind:
        args = {'layers': (1, 1, 1, 1), 'channels': (16, 32, 64, 128), 'attn_args': {'grid_size': 4}}
        model = tiny('dpa', attn_args={'grid_size': 4})
    if 'whiten' in kind:
        torch.nn.init.orthogonal_(model.whiten.matrix)
    save_model_folder(ModelRecipe(name='dpa_resnet18', args=args), SIZE, model.state_dict(), folder)
    if 'half' in kind:
        store_half(folder / 'model.safetensors', folder / 'half.safetensors')
        (folder / 'half.safetensors').replace(folder / 'model.safetensors')
    return folder


@pytest.fixture(scope='module', params=['plain', 'whiten half', 'options'])
def folder(request, tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp('models') / request.param.replace(' ', '_'), request.param)


@pytest.fixture(scope='module')
def wanted(folder, crops):
    return FeatureExtractor(folder, precision='fp32', device='cpu')(crops)


def unit(embeddings):
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def test_sentence_transformers(folder, crops, wanted):
    sentence_transformers = pytest.importorskip('sentence_transformers')
    model = sentence_transformers.SentenceTransformer(str(folder), device='cpu')
    found = model.encode([Image.open(path).convert('RGB') for path in crops])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_transformers_computes_in_float32(folder, crops, wanted):
    transformers = pytest.importorskip('transformers')
    model = transformers.AutoModel.from_pretrained(folder).eval()
    assert model.dtype == torch.float32
    prepare = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = prepare([Image.open(path).convert('RGB') for path in crops], return_tensors='pt')
    with torch.no_grad():
        found = model(**pixels).pooler_output.numpy()
    np.testing.assert_allclose(unit(found), wanted, rtol=0, atol=1e-5)


def test_reid_reads_the_folder_wherever_it_is(folder, crops, wanted, tmp_path):
    reid = pytest.importorskip('reid')
    if not (folder / 'reid_config.json').exists():
        assert not (folder / 'weights.safetensors').exists()
        pytest.skip('a model with options of its own, which reid can only be given')
    assert (folder / 'weights.safetensors').samefile(folder / 'model.safetensors')
    moved = tmp_path / 'moved'
    shutil.copytree(folder, moved, symlinks=True)
    model = reid.ReIDModel.from_pretrained(str(moved), device='cpu')
    np.testing.assert_allclose(unit(model.extract_embeddings_from_paths(crops)), wanted, rtol=0, atol=1e-6)


def test_to_reid_takes_every_model(folder, crops, wanted):
    pytest.importorskip('reid')
    extractor = FeatureExtractor(folder, precision='fp32', device='cpu')
    found = to_reid(extractor).extract_embeddings_from_paths(crops)
    np.testing.assert_allclose(unit(found), wanted, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match='without flip'):
        to_reid(FeatureExtractor(extractor.model, flip=True))


def test_a_classifier_changes_nothing_for_reid(crops):
    pytest.importorskip('reid')
    model = timm.create_model('reid_resnet18', num_classes=7).eval()
    wanted = FeatureExtractor(model, precision='fp32')(crops[:2])
    np.testing.assert_allclose(unit(to_reid(model).extract_embeddings_from_paths(crops[:2])), wanted, rtol=0, atol=1e-6)


def test_of_frames_and_detections_reid_swaps_the_channels(folder, crops, wanted):
    pytest.importorskip('reid')
    supervision = pytest.importorskip('supervision')
    crop = np.asarray(draw_vehicle(0, view=0))
    height, width = crop.shape[:2]
    frame = np.zeros((height + 9, width + 9, 3), np.uint8)
    frame[4 : 4 + height, 3 : 3 + width] = crop[:, :, ::-1]
    detections = supervision.Detections(xyxy=np.array([[3, 4, 3 + width, 4 + height]], np.float32))
    found = to_reid(folder).extract_embeddings(detections, frame)
    np.testing.assert_allclose(unit(found), wanted[:1], rtol=0, atol=1e-6)


def test_the_configuration_says_what_the_model_wants(folder):
    content = json.loads((folder / 'config.json').read_text())
    assert content['dtype'] == 'float32'
    if (folder / 'reid_config.json').exists():
        prepared = json.loads((folder / 'reid_config.json').read_text())['preprocessing']
        assert (tuple(prepared['input_size']), prepared['interpolation']) == (SIZE, 'bicubic')
