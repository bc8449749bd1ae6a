"""The task's loss against its parts computed apart, and eq. 13 against the released form."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.support.models import images, tiny
from timm_dpa.train.losses import TripletLoss
from timm_dpa.train.recipes.recipe import LossRecipe
from timm_dpa.train.run.task import ReIDTask, smoothing_of_torch

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize('feature', ['before_neck', 'after_neck'])
def test_weighted_sum_of_the_two_losses(feature):
    model = tiny('dpa', num_classes=5).train()
    pixels = images(6, 3, 64, 64)
    loss = LossRecipe(classifier_weight=0.5, metric_weight=2.0, metric_feature=feature, metric_args={'margin': 0.3})
    result = ReIDTask(model, loss)(pixels, LABELS)
    before = model.global_pool(model.forward_features(pixels))
    after = model.neck(before)
    metric = TripletLoss(margin=0.3)(before if feature == 'before_neck' else after, LABELS)
    classifier = F.cross_entropy(model.fc(after), LABELS, label_smoothing=0.1)
    torch.testing.assert_close(result['loss'], 0.5 * classifier + 2 * metric)
    torch.testing.assert_close(result['classifier'], classifier)
    torch.testing.assert_close(result['output'], model.fc(after))


def test_smoothing_over_the_others_is_that_of_the_released_code():
    torch.manual_seed(0)
    logits, target, eps, classes = torch.randn(4, 7, dtype=torch.float64), torch.tensor([0, 3, 6, 3]), 0.1, 7
    expected = 0.0
    for row, label in zip(logits.log_softmax(1).tolist(), target.tolist(), strict=True):
        share = [eps / (classes - 1)] * classes
        share[label] = 1 - eps
        expected -= math.fsum(q * p for q, p in zip(share, row, strict=True)) / len(target)
    ours = F.cross_entropy(logits, target, label_smoothing=smoothing_of_torch(eps, classes, smooth_target=False))
    assert float(ours) == pytest.approx(expected, rel=1e-12)
    assert smoothing_of_torch(eps, classes, smooth_target=True) == eps


def test_losses_are_float32_inside_autocast():
    model = tiny('dpa', num_classes=5).train()
    with torch.autocast('cpu', torch.bfloat16):
        result = ReIDTask(model, LossRecipe())(images(6, 3, 64, 64), LABELS)
    assert {result[key].dtype for key in ('loss', 'classifier', 'metric')} == {torch.float32}


def test_compiled_it_keeps_its_names():
    model = tiny('dpa', num_classes=5).train()
    task = ReIDTask(model, LossRecipe())
    names = list(task.model.state_dict())
    task.compile(backend='eager')
    result = task(images(6, 3, 64, 64), LABELS)
    result['loss'].backward()
    assert list(model.state_dict()) == names
    assert model.conv1.weight.grad is not None


@pytest.mark.parametrize(
    ('loss', 'classes', 'message'),
    [
        (LossRecipe(classifier='none', metric='none'), 5, 'nothing to learn from'),
        (LossRecipe(), 1, 'at least 2 identities'),
        (LossRecipe(metric='supcon', metric_args={'temprature': 1}), 5, 'temprature'),
    ],
)
def test_wrong_recipes(loss, classes, message):
    with pytest.raises(ValueError, match=message):
        ReIDTask(tiny('dpa', num_classes=classes), loss)
