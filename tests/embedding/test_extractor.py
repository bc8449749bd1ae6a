"""The extractor, compared with timm's own preprocessing and the plain model in float32."""

import copy
import gc
import logging
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

import timm_dpa
from tests.support.models import lively
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.images import Decoding, ImageError
from timm_dpa.embedding.models import create_embedding_model

SIZE = 64


def make_model(**kwargs) -> nn.Module:
    torch.manual_seed(1)
    return lively(timm.create_model('dpa_resnet18', **kwargs))


def reference(model: nn.Module, images: list[Image.Image], size=(SIZE, SIZE)) -> np.ndarray:
    """Unit embeddings, one image at a time, by timm's transform."""
    transform = create_transform(**{**resolve_data_config(model=model), 'input_size': (3, *size)})
    model = copy.deepcopy(model).float().eval()
    with torch.no_grad():
        rows = [model.forward_head(model.forward_features(transform(im)[None]), pre_logits=True)[0] for im in images]
    rows = torch.stack(rows).double()
    return (rows / rows.norm(dim=1, keepdim=True)).numpy()


@pytest.fixture(scope='module')
def model():
    return make_model()


@pytest.fixture(scope='module')
def extractor(model):
    return FeatureExtractor(model, precision='fp32', batch_size=3, image_size=SIZE, workers=3)


@pytest.fixture(scope='module')
def images():
    """Crops as detectors give them: of all shapes."""
    rng = np.random.default_rng(0)
    shapes = [(40, 60), (64, 64), (90, 30), (17, 200), (64, 48), (120, 121), (33, 33), (8, 8)]
    return [
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(s, Image.Resampling.BICUBIC)
        for s in shapes
    ]


@pytest.fixture(scope='module')
def expected(model, images):
    rows = reference(model, images)
    assert (rows @ rows.T - np.eye(len(rows))).max() < 0.9999  # or the order of rows could not be seen
    return rows


@pytest.fixture
def folder(tmp_path, images):
    for index, image in enumerate(images):
        image.save(tmp_path / f'{index}.png')
    return tmp_path


def assert_same(actual, expected, tolerance=1e-5):
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


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
        assert_same(FeatureExtractor(model, precision='fp32')(images[:1]), reference(model, images[:1], (256, 256)))

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


class TestModel:
    def test_a_module_is_not_changed(self, images, expected):
        model = make_model(num_classes=5)
        model.train()
        model.layer1.eval()  # as someone does who freezes it
        model.bn1.weight.requires_grad_(False)
        modes = {name: module.training for name, module in model.named_modules()}
        grads = {name: p.requires_grad for name, p in model.named_parameters()}
        state = {name: (value.clone(), value.data_ptr(), value.stride()) for name, value in model.state_dict().items()}
        assert_same(FeatureExtractor(model, precision='fp32', image_size=SIZE)(images), expected)
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert {name: p.requires_grad for name, p in model.named_parameters()} == grads
        for name, value in model.state_dict().items():
            before, pointer, stride = state[name]
            assert torch.equal(value, before), name
            assert (value.data_ptr(), value.stride()) == (pointer, stride), name

    def test_the_module_is_not_left_in_another_mode_by_an_error(self, images):
        model = make_model(global_pool='').train()
        with pytest.raises(ValueError, match='global_pool'):
            FeatureExtractor(model, precision='fp32', image_size=SIZE)(images)
        assert all(module.training for module in model.modules())

    def test_the_module_can_still_be_trained(self, images):
        model = make_model(num_classes=5)
        extractor = FeatureExtractor(model, precision='bf16', image_size=SIZE)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            extractor(images[:2])
            loss = model.train()(torch.zeros(2, 3, SIZE, SIZE)).float().square().sum()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_embeddings_are_ordinary_tensors(self, extractor):
        embedding = extractor.embed_pixels(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))
        assert not embedding.is_inference()
        assert not embedding.requires_grad
        linear = nn.Linear(512, 2)
        linear(embedding).sum().backward()
        assert extractor([np.zeros((4, 4, 3), np.uint8)]).flags.writeable

    def test_embed_pixels_takes_pixels_only(self, extractor):
        pixels = torch.full((1, 3, SIZE, SIZE), 7, dtype=torch.uint8)
        extractor.embed_pixels(pixels)
        assert (pixels == 7).all()
        for wrong in (pixels.float(), pixels[0], pixels[:, :1]):
            with pytest.raises(ValueError, match='uint8'):
                extractor.embed_pixels(wrong)

    def test_a_classifier_makes_no_difference(self, images, expected):
        model = make_model(num_classes=7)
        extractor = FeatureExtractor(model, precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        plain = FeatureExtractor(make_model(), precision='fp32', image_size=SIZE)
        assert extractor.describe() == plain.describe()

    def test_grey_models_are_refused(self):
        with pytest.raises(ValueError, match='in_chans=3'):
            FeatureExtractor(make_model(in_chans=1))

    def test_a_module_of_another_kind_is_refused(self):
        for module in (nn.Sequential(nn.Conv2d(3, 4, 1)), timm.create_model('test_resnet', features_only=True)):
            with pytest.raises(ValueError, match=r'timm\.create_model, without features_only'):
                FeatureExtractor(module)
        with pytest.raises(TypeError, match='name or a module'):
            FeatureExtractor(3)

    def test_a_half_precision_module(self, images, expected):
        vectors = FeatureExtractor(make_model().bfloat16(), precision='fp32', image_size=SIZE)(images)
        assert vectors.dtype == np.float32
        assert (vectors * expected).sum(1).min() > 0.99

    @pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16', 'auto'])
    def test_precision(self, model, images, expected, precision):
        vectors = FeatureExtractor(model, precision=precision, image_size=SIZE)(images)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert (vectors * expected).sum(1).min() > (0.999 if precision != 'fp32' else 1 - 1e-6)

    def test_fp32_inside_the_autocast_of_the_caller(self, extractor, images, expected):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert_same(extractor(images), expected)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
    @pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16', 'auto'])
    def test_cuda(self, images, expected, precision):
        extractor = FeatureExtractor(make_model().cuda(), precision=precision, batch_size=3, image_size=SIZE)
        assert (extractor(iter(images)) * expected).sum(1).min() > 0.999


class TestThreads:
    """Each call gives what it gives alone, and the module does not feel it."""

    @pytest.fixture
    def trained(self):
        model = make_model(num_classes=5).train()
        model.layer1.eval()  # frozen
        return model

    def test_a_module_in_training_mode(self, trained, images, expected):
        state = {name: value.clone() for name, value in trained.state_dict().items()}
        modes = [module.training for module in trained.modules()]
        extractor = FeatureExtractor(trained, precision='fp32', image_size=SIZE, batch_size=1)
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(extractor, [images] * 12):
                assert_same(vectors, expected)
        assert [module.training for module in trained.modules()] == modes
        for name, value in trained.state_dict().items():
            assert torch.equal(value, state[name]), name

    def test_several_extractors_of_one_module(self, trained, images, expected):
        extractors = [FeatureExtractor(trained, precision='fp32', image_size=SIZE, batch_size=1) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(lambda extractor: extractor(images), extractors):
                assert_same(vectors, expected)

    def test_beside_a_training_loop(self, images, expected):
        """Which sees batch statistics and dropout all the time; its learning rate is 0, so that there is one answer."""
        model = make_model(num_classes=5, drop_rate=0.5).train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        modes: list[bool] = []
        hooks = [m.register_forward_hook(lambda m, *_: modes.append(m.training)) for m in (model.bn1, model.neck)]
        stop = threading.Event()

        def train() -> None:
            pixels = torch.randn(4, 3, SIZE, SIZE)
            while not stop.is_set():
                optimizer.zero_grad()
                model(pixels).square().sum().backward()
                optimizer.step()

        extractor = FeatureExtractor(model, precision='fp32', image_size=SIZE, batch_size=1)
        with ThreadPoolExecutor(1) as pool:
            loop = pool.submit(train)
            try:
                for _ in range(4):
                    assert_same(extractor(images), expected)
            finally:
                stop.set()
            loop.result()
        for hook in hooks:
            hook.remove()
        assert modes.count(False) == 4 * len(images) * 2  # those of the extractor, and none of the loop
        assert modes.count(True) > 0
        assert all(module.training for module in model.modules())

    def test_in_the_middle_of_itself(self, trained, images, expected):
        """A generator of images that embeds others meanwhile, and streams that take turns."""
        extractor = FeatureExtractor(trained, precision='fp32', image_size=SIZE, batch_size=2)

        def generate():
            for image in images:
                assert_same(extractor(images[:2]), expected[:2])
                assert trained.training
                yield image

        assert_same(extractor(generate()), expected)
        pairs = zip(extractor.stream(images), extractor.stream(images[::-1]), strict=True)
        rows = [(first.vectors, second.vectors) for first, second in pairs]
        assert_same(np.concatenate([first for first, _ in rows]), expected)
        assert_same(np.concatenate([second for _, second in rows]), expected[::-1])

    def test_weights_are_those_of_the_moment(self, images):
        model = make_model(num_classes=5).train()
        extractor = FeatureExtractor(model, precision='fp32', image_size=SIZE)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        first = extractor(images[:3])
        model(torch.randn(4, 3, SIZE, SIZE)).square().sum().backward()
        optimizer.step()
        second = extractor(images[:3])
        assert np.abs(first - second).max() > 1e-3
        assert_same(second, reference(model, images[:3]))
        model.load_state_dict(make_model(num_classes=5).state_dict(), assign=True)  # other tensors
        assert_same(extractor(images[:3]), first)
        model.neck = nn.Identity()  # another module
        assert_same(extractor(images[:3]), reference(model, images[:3]))


class TestOtherModels:
    @pytest.mark.parametrize('how', ['whole', 'in place', 'part'])
    def test_a_compiled_module(self, images, expected, how):
        model = make_model().train()
        if how == 'whole':
            model = torch.compile(model, backend='eager')
        elif how == 'in place':
            model.compile(backend='eager')
        else:
            model.layer1 = torch.compile(model.layer1, backend='eager')
            model.layer2[0].compile(backend='eager')
        extractor = FeatureExtractor(model, precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert all(module.training for module in model.modules())
        if how != 'part':
            plain = FeatureExtractor(make_model(), precision='fp32', image_size=SIZE)
            assert extractor.describe() == plain.describe()

    @pytest.mark.parametrize('name', ['test_vit', 'test_vit3', 'crossvit_tiny_240'])
    def test_transformers(self, name):
        image = Image.new('RGB', (50, 40), 'red')
        model = create_embedding_model(name, False)
        size = model.pretrained_cfg['input_size'][1:]
        extractor = FeatureExtractor(model, precision='fp32')
        assert_same(extractor(image), reference(model, [image], size))

    def test_a_transformer_made_for_another_size(self):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8))
        extractor = FeatureExtractor('test_vit3', False, precision='fp32', image_size=(64, 96))
        assert extractor.model.patch_embed.img_size == (64, 96)
        expected = reference(extractor.model, [image], (64, 96))
        assert_same(extractor(image), expected)
        # a module is not remade, and knows its size better than its configuration
        again = FeatureExtractor(extractor.model, precision='fp32')
        assert again.data_config['input_size'] == (3, 64, 96)
        assert_same(again(image), expected)
        with pytest.raises(ValueError, match=r'no embedding of images of 32 x 32 pixels \(.*64.*own size is'):
            FeatureExtractor(extractor.model, precision='fp32', image_size=32)(image)

    @pytest.mark.parametrize(
        ('features', 'message'),
        [
            (lambda x: [x, x], 'gives no embedding'),
            (lambda x: (x,), 'gives no embedding'),
            (lambda x: x[:, :, 0, 0, None], 'gives no embedding|3-dimensional'),
        ],
    )
    def test_features_that_its_head_does_not_take(self, images, features, message):
        model = make_model()
        inner = model.forward_features
        model.forward_features = lambda x: features(inner(x))
        with pytest.raises(ValueError, match=message):
            FeatureExtractor(model, precision='fp32', image_size=SIZE)(images)

    def test_a_head_that_gives_several(self, images):
        model = make_model()
        model.forward_head = lambda x, pre_logits: (x.mean((2, 3)),) * 2
        with pytest.raises(ValueError, match='gives a tuple of features, not one embedding'):
            FeatureExtractor(model, precision='fp32', image_size=SIZE)(images)


class TestByName:
    @pytest.fixture
    def weights(self, tmp_path):
        path = tmp_path / 'dpa_resnet18.pth'
        torch.save(make_model().state_dict(), path)
        return path

    def test_random_weights_are_the_same_in_every_run(self, images, caplog):
        state = torch.get_rng_state()
        with caplog.at_level(logging.WARNING):
            first = FeatureExtractor('dpa_resnet18', precision='fp32', image_size=SIZE)
        assert 'random weights' in caplog.text
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(99)
        second = FeatureExtractor('dpa_resnet18', pretrained=False, precision='fp32', image_size=SIZE)
        assert first.describe() == second.describe()
        assert_same(first(images[:2]), second(images[:2]), 1e-7)

    def test_a_checkpoint(self, weights, images, expected):
        extractor = FeatureExtractor('dpa_resnet18', pretrained=weights, precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert extractor.origin == {'source': 'dpa_resnet18', 'checkpoint': str(weights)}

    def test_a_model_folder(self, tmp_path, images, expected, monkeypatch):
        timm.models.save_for_hf(make_model(), tmp_path / 'mine', safe_serialization=True)
        monkeypatch.chdir(tmp_path)
        extractor = FeatureExtractor('local-dir:mine', precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert extractor.origin == {'source': f'local-dir:{tmp_path / "mine"}'}

    @pytest.mark.parametrize('given', ['run', 'run/model', Path('run')])
    def test_a_run_folder(self, tmp_path, images, expected, monkeypatch, given):
        timm.models.save_for_hf(make_model(), tmp_path / 'run/model', safe_serialization=True)
        monkeypatch.chdir(tmp_path)
        extractor = FeatureExtractor(given, precision='fp32', image_size=SIZE)
        assert_same(extractor(images), expected)
        assert extractor.origin == {'source': f'local-dir:{tmp_path / "run/model"}'}

    def test_folders_without_a_model(self, tmp_path, monkeypatch):
        (tmp_path / 'run').mkdir()
        (tmp_path / 'reid_resnet18').mkdir()
        monkeypatch.chdir(tmp_path)
        for given in ('run', Path('run'), Path('none')):
            with pytest.raises(FileNotFoundError, match='no model in this folder'):
                FeatureExtractor(given)
        assert FeatureExtractor('reid_resnet18', False).embedding_size == 512  # its name is that of a model

    @pytest.mark.parametrize(
        ('arguments', 'error', 'reason'),
        [
            ({'model': 'dpa_resnet19'}, ValueError, 'dpa_resnet19.*timm-dpa models'),
            ({'model': 'dpa_resnet18.none'}, ValueError, r'dpa_resnet18\.none'),
            ({'model': 'dpa_resnet18', 'pretrained': True}, ValueError, 'No pretrained weights'),
            ({'model': 'dpa_resnet18', 'pretrained': 'none.pth'}, FileNotFoundError, r'none\.pth'),
            ({'model': 'local-dir:/none'}, FileNotFoundError, '/none'),
            ({'model': 'dpa_resnet18', 'precision': 'fp8'}, ValueError, 'auto, fp32, bf16, fp16'),
            ({'batch_size': 0}, ValueError, 'batch_size'),
            ({'workers': 0}, ValueError, 'workers'),
            ({'model': 'dpa_resnet18', 'image_size': 0}, ValueError, 'image_size'),
            ({'model': 'dpa_resnet18', 'device': 'gpu'}, ValueError, 'device gpu'),
            ({'model': 'dpa_resnet18', 'device': 'cuda:77'}, ValueError, 'device cuda:77'),
        ],
    )
    def test_wrong_arguments(self, arguments, error, reason):
        with pytest.raises(error, match=reason):
            FeatureExtractor(**arguments)

    def test_an_unknown_name_is_not_taken_for_one_without_weights(self, caplog):
        with pytest.raises(ValueError, match='dpa_resnet19'):
            FeatureExtractor('dpa_resnet19')
        assert not caplog.text

    def test_a_checkpoint_of_another_architecture(self, weights):
        with pytest.raises(ValueError, match=r'dpa_resnet18\.pth: weights of another architecture'):
            FeatureExtractor('reid_resnet18', pretrained=weights)

    def test_pretrained_is_for_names(self, model):
        with pytest.raises(ValueError, match='pretrained'):
            FeatureExtractor(model, pretrained=True)

    def test_a_module_elsewhere(self, model):
        with pytest.raises(ValueError, match=r"the module is on cpu; move it with \.to\('meta'\)"):
            FeatureExtractor(model, device='meta')
        assert FeatureExtractor(model, device='cpu').device.type == 'cpu'

    def test_create_embedding_model(self):
        model = create_embedding_model('dpa_resnet18', False)
        assert model.num_classes == 0


class TestDescribe:
    def test_whatever_changes_an_embedding_changes_it(self, model):
        def description(changed=model, **kwargs):
            return {k: v for k, v in FeatureExtractor(changed, **kwargs).describe().items() if k != 'model'}

        same = description()
        assert description(batch_size=3, workers=1, precision='bf16') == same
        assert description(copy.deepcopy(model)) == same
        assert all(isinstance(value, str) for value in same.values())
        others = [description(image_size=SIZE)]
        other = copy.deepcopy(model)
        other.layer2[0].bn1.running_mean[0] += 1e-3
        others.append(description(other))
        other = copy.deepcopy(model)
        other.layer4[0].conv1.stride = (2, 2)
        others.append(description(other))
        others.append(description(make_model(global_pool='avg')))
        others.append(description(make_model(stem_pool_ceil=True)))
        others.append(description(make_model(pretrained_cfg_overlay={'mean': (0.5, 0.5, 0.5)})))
        assert all(other != same for other in others)


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
