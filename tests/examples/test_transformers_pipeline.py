"""examples/transformers_pipeline.py, compared with FeatureExtractor."""

import json
import re
import shutil

import numpy as np
import pytest

from tests.support.examples import load, program, refused


class TestTransformersPipeline:
    """TimmWrapper on a folder of ours."""

    #: float32 sums in another order; the weights and pixels are equal
    TOLERANCE = 1e-5

    def test_same_embeddings_as_the_extractor(self, crops, run_folder, extractor, tmp_path):
        pytest.importorskip('transformers')
        done = program(
            'transformers_pipeline', crops, '--model', run_folder, '--out', 'a.npy', '--compare', cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        files = sorted(map(str, crops.iterdir()))
        expected = extractor(files)
        vectors = np.load(tmp_path / 'a.npy')
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=self.TOLERANCE)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert np.abs(expected - expected.mean(0)).max() > 100 * self.TOLERANCE  # the images do differ
        *nearest, count, compared = done.stdout.splitlines()
        similarity = expected.astype(np.float64) @ expected.T.astype(np.float64) - 2 * np.eye(len(files))
        for file, line, row in zip(files, nearest, similarity, strict=True):
            found, cosine = re.fullmatch(rf'{re.escape(file)}: most similar is (.*), (\S+)', line).groups()
            assert float(cosine) == pytest.approx(row.max(), abs=1e-4)
            assert row[files.index(found)] == pytest.approx(row.max(), abs=1e-5)
        assert count == '8 images, embeddings of 128 numbers: a.npy'
        printed = float(compared.removeprefix('largest difference from timm_dpa.FeatureExtractor: '))
        assert printed == pytest.approx(np.abs(vectors - expected).max(), abs=1e-6)

    def test_num_classes_must_not_be_in_the_arguments_of_the_model(self, call, crops, run_folder, tmp_path):
        """Why `save_model_folder` takes it out of what timm writes."""
        folder = tmp_path / 'model'
        shutil.copytree(run_folder / 'model', folder)
        config = json.loads((folder / 'config.json').read_text())
        config['model_args']['num_classes'] = 0
        (folder / 'config.json').write_text(json.dumps(config))
        result = call('transformers_pipeline', crops, '--model', folder)
        refused(result, 'transformers_pipeline', "multiple values for keyword argument 'num_classes'")

    def test_wrong_use(self, call, crops, run_folder, tmp_path):
        module, name = load('transformers_pipeline'), 'transformers_pipeline'
        image, text = crops / '0.png', tmp_path / 'a.png'
        text.write_text('text')

        def wrong(message, *arguments):
            refused(call(name, *arguments, module=module), name, message)

        wrong('none.jpg: no such file or folder', 'none.jpg', '--model', run_folder)
        wrong('none: no such folder, and no org/name', image, '--model', 'none')
        wrong('no model in this folder', image, '--model', crops)
        wrong('must end in .npy', image, '--model', run_folder, '--out', tmp_path / 'a.csv')
        wrong('no such folder', image, '--model', run_folder, '--out', tmp_path / 'b/a.npy')
        wrong('cannot identify image file', text, '--model', run_folder)
