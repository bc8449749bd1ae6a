"""examples/onnx_service.py, compared with FeatureExtractor."""

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.support.examples import extractor_items, load, program, refused
from timm_dpa.embedding.export import export_model
from timm_dpa.train.data.toy_vehicles import draw_vehicle


@pytest.fixture(scope='module')
def gallery(bare, crops, onnx_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp('gallery')
    done = program('onnx_service', 'embed', onnx_file, crops, '--out', 'crops.npz', cwd=folder, **bare)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == '8 images, embeddings of 128 numbers: crops.npz\n'
    return folder / 'crops.npz'


class TestOnnxService:
    def test_same_embeddings_as_the_extractor(self, gallery, crops, extractor):
        with np.load(gallery) as file:
            vectors, names = file['vectors'], file['names'].tolist()
        assert names == sorted(map(str, crops.iterdir()))
        expected = extractor(names)
        assert vectors.dtype == np.float32
        assert (vectors * expected).sum(1).min() > 0.9999
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)

    def test_pixels_are_those_of_timm(self, onnx_file, crops, extractor, tmp_path):
        """Also of a transparent image, whose hidden colors must not show."""
        rgba = np.dstack([np.asarray(draw_vehicle(3, 0)), np.full((128, 128), 255, np.uint8)])
        rgba[:40, :, 3] = 0
        rgba[40:60, :, 3] = 99
        Image.fromarray(rgba).save(tmp_path / 'clear.png')
        embedder = load('onnx_service').Embedder(str(onnx_file))
        for path in [*crops.iterdir(), tmp_path / 'clear.png']:
            (item,) = extractor_items(path)
            expected = (extractor.transform(item).float() - extractor.mean[0]) / extractor.std[0]
            with Image.open(path) as image:
                np.testing.assert_allclose(embedder.prepare(image), expected.numpy(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize('stored', [True, False])
    def test_search_ranks_the_gallery(self, bare, gallery, crops, onnx_file, extractor, tmp_path, stored):
        query = tmp_path / 'query.png'
        draw_vehicle(2, 9).save(query)
        options = ['--query', query, '--gallery', gallery if stored else crops, '--top', 5]
        done = program('onnx_service', 'search', onnx_file, *options, cwd=tmp_path, **bare)
        assert (done.returncode, done.stderr) == (0, '')
        first, *lines = done.stdout.splitlines()
        assert first == str(query)
        names = sorted(map(str, crops.iterdir()))
        cosines = dict(zip(names, (extractor(names) @ extractor(query)[0]).tolist(), strict=True))
        ranks, similarities, found = zip(*(line.split() for line in lines), strict=True)
        assert ranks == ('1', '2', '3', '4', '5')
        assert list(found) == sorted(names, key=cosines.get, reverse=True)[:5]
        assert [float(s) for s in similarities] == pytest.approx([cosines[name] for name in found], abs=1e-4)

    @pytest.mark.parametrize('input', ['unit', 'uint8-bgr'])
    def test_files_that_normalize_themselves(self, extractor, crops, tmp_path, input):
        report = export_model(extractor.model, tmp_path / 'a.onnx', input=input)
        embedder = load('onnx_service').Embedder(str(report.path))
        paths = sorted(crops.iterdir())
        vectors = embedder([Image.open(path) for path in paths])
        np.testing.assert_allclose(vectors, extractor(paths), rtol=0, atol=1e-5)

    def test_crops_of_a_request(self, onnx_file, extractor):
        embedder = load('onnx_service').Embedder(str(onnx_file))
        images = [draw_vehicle(k, 1).crop((0, 0, 60 + k, 80)) for k in range(40)]
        np.testing.assert_allclose(embedder(images), extractor(images), rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ('entries', 'message'),
        [
            ({'crop_mode': '"center"'}, 'wants other images'),
            ({'crop_pct': '0.9'}, 'wants other images'),
            ({'input_size': '[1, 64, 96]'}, 'wants other images'),
            ({'interpolation': '"random"'}, 'wants other images'),
            ({'layout': '"NCWH"'}, 'takes images as float32 NCWH'),
            ({'mean': None}, 'no metadata of timm-dpa'),
            ({'model': '"another one"'}, r'crops\.npz: made by another model'),
        ],
    )
    def test_other_models(self, call, onnx_file, gallery, crops, tmp_path, entries, message):
        model = onnx.load(onnx_file)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        changed = {key: value for key, value in {**properties, **entries}.items() if value is not None}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, changed)
        onnx.save(model, tmp_path / 'other.onnx')
        options = ['--query', crops / '0.png', '--gallery', gallery]
        refused(call('onnx_service', 'search', tmp_path / 'other.onnx', *options), 'onnx_service', message)

    def test_wrong_use(self, call, onnx_file, gallery, crops, tmp_path, bare):
        name, image = 'onnx_service', crops / '0.png'
        (tmp_path / 'empty').mkdir()
        text = tmp_path / 'text.jpg'
        text.write_text('text')
        deep = tmp_path / 'deep.png'
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(deep)

        def wrong(message, *arguments):
            refused(call(name, *arguments), name, message)

        out = ['--out', tmp_path / 'a.npz']
        wrong('none.onnx', 'embed', tmp_path / 'none.onnx', image, *out)
        wrong('text.jpg: no model that onnxruntime can load', 'embed', text, image, *out)
        wrong('none.png', 'embed', onnx_file, image, tmp_path / 'none.png', *out)
        wrong('empty: no images', 'embed', onnx_file, tmp_path / 'empty', *out)
        wrong('text.jpg: cannot identify', 'embed', onnx_file, image, text, *out)
        wrong('deep.png: more than 8 bits', 'embed', onnx_file, deep, *out)
        wrong(r'must end in \.npz', 'embed', onnx_file, image, '--out', tmp_path / 'a.csv')
        wrong('folder that exists', 'embed', onnx_file, image, '--out', tmp_path / 'none/a.npz')
        wrong('none: neither a folder', 'search', onnx_file, '--query', image, '--gallery', tmp_path / 'none')
        wrong('text.jpg: neither a folder', 'search', onnx_file, '--query', image, '--gallery', text)
        wrong('at least 1, not 0', 'search', onnx_file, '--query', image, '--gallery', gallery, '--top', 0)
        assert not (tmp_path / 'a.npz').exists()
        done = program(name, 'embed', tmp_path / 'none.onnx', image, *out, cwd=tmp_path, **bare)
        refused((done.returncode, done.stdout, done.stderr), name, 'none.onnx')
