"""Extractors of a module of the caller: what they do with it, from several threads, and which modules they take."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from tests.support.extractors import SIZE, assert_same, make_model, reference
from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.models import create_embedding_model


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
