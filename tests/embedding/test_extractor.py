"""The extractor, compared with timm's own preprocessing and the plain model in float32."""

import gc
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import timm_dpa
from tests.support.extractors import SIZE, assert_same, make_model, reference
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.images import Decoding, ImageError


class TestAnswer:
    def test_it_is_what_timm_gives(self, extractor, images, expected):
        vectors = extractor(images)
        assert_same(vectors, expected)
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-6)
        assert extractor.embedding_size == vectors.shape[1] == 512

    def test_any_size(self, model, images):
        extractor = FeatureExtractor(model, precision='fp32', image_size=(48, 80))
        assert_same(extractor(images[:3]), reference(model, images[:3], (48, 80)))

    def test_the_size_of_the_model_is_the_default(self, model, images):
        assert_same(FeatureExtractor(model, precision='fp32')(images[:1]), reference(model, images[:1], (96, 96)))

    def test_preprocessing_is_the_model_s_own(self, images):
        model = make_model(
            pretrained_cfg_overlay={'mean': (0.1, 0.5, 0.9), 'std': (0.5, 0.3, 0.2), 'crop_mode': 'center'}
        )
        model.pretrained_cfg.update(crop_pct=0.8, interpolation='bilinear')
        assert_same(
            FeatureExtractor(model, precision='fp32', image_size=SIZE)(images[:3]), reference(model, images[:3])
        )

    @pytest.mark.parametrize(('batch_size', 'workers'), [(1, 1), (2, 5), (7, 2), (100, 4)])
    def test_batches_and_threads_do_not_matter(self, model, images, expected, batch_size, workers):
        extractor = FeatureExtractor(model, precision='fp32', batch_size=batch_size, image_size=SIZE, workers=workers)
        assert_same(extractor(images), expected)

    def test_order_is_kept_when_decoding_is_not_in_order(self, model, images, expected):
        extractor = FeatureExtractor(model, precision='fp32', batch_size=5, image_size=SIZE, workers=4)
        inner, count = extractor.transform, iter(range(100))

        def slow_first(image):
            time.sleep(0.05 if next(count) % 2 == 0 else 0)
            return inner(image)

        extractor.transform = slow_first
        assert_same(extractor(images), expected)

    def test_another_model_of_timm(self, images):
        torch.manual_seed(0)
        model = timm.create_model('test_resnet')
        extractor = FeatureExtractor(model, precision='fp32', image_size=SIZE)
        assert_same(extractor(images[:3]), reference(model, images[:3]))

    def test_the_package_offers_it(self):
        assert timm_dpa.FeatureExtractor is FeatureExtractor


class TestInputs:
    def test_paths(self, extractor, folder, expected):
        paths = sorted(folder.iterdir())
        assert_same(extractor(paths), expected)
        assert_same(extractor([str(path) for path in reversed(paths)]), expected[::-1])
        assert_same(extractor(paths[2]), expected[2:3])
        assert extractor.run(paths).names == [str(path) for path in paths]

    def test_a_folder(self, extractor, folder, expected):
        assert_same(extractor(folder), expected)
        assert_same(extractor([folder, folder / '0.png']), np.concatenate([expected, expected[:1]]))

    def test_arrays(self, extractor, images, expected):
        arrays = [np.asarray(image) for image in images]
        assert_same(extractor(arrays), expected)
        assert_same(extractor([(array / 255).astype(np.float32) for array in arrays]), expected)
        assert_same(extractor(arrays[1]), expected[1:2])
        assert_same(extractor(arrays[1][None].repeat(4, axis=0)), expected[[1] * 4])

    def test_tensors(self, extractor, images, expected):
        tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
        assert_same(extractor(tensors), expected)
        assert_same(extractor([tensor / 255 for tensor in tensors]), expected)
        assert_same(extractor(tensors[1]), expected[1:2])
        assert_same(extractor(torch.stack([tensors[1]] * 4)), expected[[1] * 4])

    def test_a_mixture(self, extractor, images, folder, expected):
        mixture = [
            folder / '0.png',
            images[1],
            np.asarray(images[2]),
            torch.from_numpy(np.array(images[3])).permute(2, 0, 1),
            str(folder / '4.png'),
            np.asarray(images[5])[None] / 255,
            images[6].convert('RGBA'),
        ]
        assert_same(extractor(mixture), expected[:7])
        names = extractor.run(mixture).names
        assert names[:2] == [str(folder / '0.png'), 'image 1']

    def test_the_same_image_twice(self, extractor, folder, expected):
        with Image.open(folder / '0.png') as image:
            assert_same(extractor([image] * 6), expected[[0] * 6])

    @pytest.mark.parametrize('nothing', [[], (), iter([]), np.empty((0, 8, 8, 3), np.uint8)])
    def test_nothing(self, extractor, nothing):
        assert_same(extractor(nothing), np.empty((0, 512)))

    def test_a_generator_is_read_as_it_is_needed(self, extractor, images, expected):
        taken = []

        def generate():
            for image in images:
                taken.append(image)
                yield image

        stream = extractor.stream(generate())
        first = next(stream)
        assert len(taken) <= 2 * extractor.batch_size
        assert len(first.vectors) == extractor.batch_size
        rest = list(stream)
        assert_same(np.concatenate([first.vectors, *(batch.vectors for batch in rest)]), expected)

    def test_a_generator_that_fails(self, extractor, images):
        def generate():
            yield from images[:4]
            raise KeyError('the camera is gone')

        with pytest.raises(KeyError, match='the camera is gone'):
            extractor(generate())

    def test_a_missing_file_shows_before_the_work(self, extractor, folder, monkeypatch):
        monkeypatch.setattr(extractor, 'embed_pixels', None)
        with pytest.raises(FileNotFoundError, match=r'gone\.png'):
            extractor([*folder.iterdir(), 'gone.png'])

    def test_files_of_odd_kinds(self, extractor, model, tmp_path, images):
        expected = reference(model, [images[0].convert('L').convert('RGB'), images[1].rotate(180)])
        images[0].convert('L').save(tmp_path / 'grey.png')
        exif = Image.Exif()
        exif[0x0112] = 3
        images[1].save(tmp_path / 'upside down é.png', exif=exif)
        assert_same(extractor([tmp_path / 'grey.png', tmp_path / 'upside down é.png']), expected)


class TestFailures:
    def test_a_named_file_that_is_no_image(self, extractor, folder):
        (folder / 'bad.jpg').write_bytes(b'text')
        with pytest.raises(ImageError, match=r'bad\.jpg: not an image'):
            extractor([folder / '0.png', folder / 'bad.jpg', folder / '1.png'])

    def test_in_a_folder_the_rest_is_done(self, extractor, folder, expected):
        (folder / '00.jpg').write_bytes(b'text')
        (folder / '9.jpg').write_bytes(b'')
        (folder / '99.jpg').symlink_to('nowhere')
        result = extractor.run(folder)
        assert_same(result.vectors, expected)
        assert result.names == [str(folder / f'{i}.png') for i in range(len(expected))]
        assert sorted(result.failures) == [str(folder / name) for name in ('00.jpg', '9.jpg', '99.jpg')]
        with pytest.raises(ImageError, match=r'00\.jpg: not an image'):
            extractor.run(folder, on_error='raise')

    #: what cannot be used, at positions 1, 4 and 5 of others
    BAD = {  # noqa: RUF012
        'None': lambda folder: None,
        'empty crop': lambda folder: np.zeros((0, 7, 3), np.uint8),
        'empty tensor': lambda folder: torch.zeros(3, 7, 0),
        'NaN': lambda folder: np.full((8, 8, 3), np.nan, np.float32),
        'text': lambda folder: folder / 'bad.jpg',
        'missing': lambda folder: str(folder / 'gone.jpg'),
        'broken link': lambda folder: folder / 'link.jpg',
    }

    @pytest.mark.parametrize('kind', BAD)
    def test_one_policy_for_all_that_cannot_be_used(self, extractor, images, expected, folder, kind, caplog):
        (folder / 'bad.jpg').write_bytes(b'text')
        (folder / 'link.jpg').symlink_to('nowhere')
        bad = self.BAD[kind](folder)
        mixed = [images[0], bad, images[1], images[2], bad, bad, images[3]]
        for call in (extractor, lambda some: extractor.run(some, on_error='raise')):
            with pytest.raises((ImageError, FileNotFoundError), match=r'image 1|bad\.jpg|gone\.jpg|link\.jpg'):
                call(mixed)
        for given in (mixed, iter(mixed)):
            rows = extractor(given, on_error='report')
            assert rows.shape == (7, 512)
            assert np.isnan(rows[[1, 4, 5]]).all()
            assert_same(rows[[0, 2, 3, 6]], expected[:4])
        assert len(caplog.messages) == 6
        result = extractor.run(mixed)
        assert_same(result.vectors, expected[:4])
        assert result.names == ['image 0', 'image 2', 'image 3', 'image 6']
        assert len(result.failures) == (1 if kind in ('text', 'missing', 'broken link') else 3)
        assert np.isnan(extractor([bad, bad], on_error='report')).all()

    def test_unknown_policy(self, extractor, images):
        for call in (extractor, extractor.run, lambda *a, **k: list(extractor.stream(*a, **k))):
            with pytest.raises(ValueError, match="on_error must be 'raise' or 'report', not 'skip'"):
                call(images, on_error='skip')

    def test_options_are_named(self, extractor, images):
        """A second argument would be taken for one of them, as by who passes a frame and its boxes."""
        for call in (extractor, extractor.run, extractor.stream):
            with pytest.raises(TypeError, match='positional'):
                call(images[0], [[1, 2, 3, 4]])

    def test_limits_of_decoding(self, model, folder, expected):
        extractor = FeatureExtractor(model, precision='fp32', image_size=SIZE, decoding=Decoding(max_pixels=5000))
        failures = extractor.run(folder).failures
        assert sorted(Path(name).name for name in failures) == ['5.png']  # 120 x 121
        assert all('max_pixels=5000' in reason for reason in failures.values())

    def test_a_folder_of_failures(self, extractor, tmp_path):
        for index in range(7):
            (tmp_path / f'{index}.jpg').write_bytes(b'text')
        result = extractor.run(tmp_path)
        assert result.vectors.shape == (0, 512)
        assert len(result.failures) == 7

    def test_nan_image(self, extractor, images):
        with pytest.raises(ImageError, match=r'image 1: .*NaN'):
            extractor([images[0], np.full((8, 8, 3), np.nan, np.float32)])

    def test_nan_weights(self, folder):
        model = make_model()
        with torch.no_grad():
            model.layer4[1].bn2.weight[3] = torch.nan
        with pytest.raises(RuntimeError, match=r'0\.png: the embedding is not finite'):
            FeatureExtractor(model, precision='fp32', image_size=SIZE)(folder)

    def test_nothing_is_decoded_after_a_failure(self, model, images):
        extractor = FeatureExtractor(model, precision='fp32', batch_size=50, image_size=SIZE, workers=2)
        seen = []

        def transform(image):
            seen.append(image)
            time.sleep(0.01)
            return torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)

        extractor.transform = transform
        with pytest.raises(ImageError):
            extractor([np.zeros((2, 2)), np.full((2, 2), np.nan), *images * 6])
        assert len(seen) < 20

    def test_no_warnings_and_no_threads_are_left(self, extractor, folder, images):
        before = set(threading.enumerate())
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            extractor(folder)
            with pytest.raises(ImageError):
                extractor([*images, np.full((2, 2), np.nan)])
            next(extractor.stream(images))  # dropped
            gc.collect()
        left = {thread for thread in threading.enumerate() if type(thread).__name__ != 'TMonitor'} - before
        assert not left


class TestProgress:
    def test_none_when_the_output_is_no_terminal(self, extractor, images, capfd):
        extractor(images)
        extractor(images, progress=None)
        extractor(images, progress=False)
        assert capfd.readouterr() == ('', '')

    def test_a_bar_that_knows_its_end(self, extractor, folder, capfd):
        extractor(folder, progress=True)
        assert '8/8' in capfd.readouterr().err
        extractor([folder, folder / '0.png'], progress=True)
        assert '9/9' in capfd.readouterr().err

    def test_a_generator_has_no_known_end(self, extractor, images, capfd):
        extractor(iter(images), progress=True)
        assert '8image' in capfd.readouterr().err
