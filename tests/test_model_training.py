"""The models in training, and what compiles them, against eager PyTorch."""

import copy
import io

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn

from tests.support import ddp_worker
from tests.support.models import (
    ATTENTIONS,
    TINY,
    assert_same,
    assert_same_gradients,
    create,
    every_model,
    few_models,
    freeze_batch_norm,
    gradients,
    images,
    most_models,
    tiny,
)
from tests.support.processes import run_two


@pytest.fixture(scope='module')
def dpa() -> nn.Module:
    """In eval mode; tests that change it take a copy."""
    return create('dpa_resnet18', num_classes=5)


class TestTraining:
    @every_model
    def test_a_step_gives_every_parameter_a_finite_gradient_and_moves_it(self, attn):
        options = {'gem_learnable': True, 'kernel_num': 2} if attn in ('dpa', 'cpa', 'spa') else {}
        model = tiny(attn, num_classes=3, attn_args=options).train()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        found = gradients(model, images(6, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2]))
        optimizer.step()
        for name, p in model.named_parameters():
            assert found[name].isfinite().all(), name
            assert not torch.equal(p, before[name]), name

    def test_fresh_weights_learn_three_images(self):
        torch.manual_seed(0)
        model = timm.create_model('dpa_resnet18', **TINY, num_classes=3).train()
        x, labels = images(6, 3, 64, 64), torch.tensor([0, 1, 2, 0, 1, 2])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(15):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 2

    @every_model
    def test_update_bn_of_torch_sets_the_mean_statistics_of_all_batches(self, attn):
        model = tiny(attn, num_classes=3, ibn=True)
        batches = [images(4, 3, 64, 64), images(3, 3, 64, 64) * 2]
        torch.optim.swa_utils.update_bn(batches, model)
        norm = model.neck
        assert (norm.momentum, norm.num_batches_tracked) == (0.1, 2)
        seen = []
        hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
        with torch.no_grad():
            for batch in batches:
                model.train()(batch)
        hook.remove()
        mean = torch.stack([x.mean(0) for x in seen]).mean(0)
        # the two passes of training above moved the momentum average away from it
        torch.optim.swa_utils.update_bn(batches, model)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in seen]).mean(0))

    def test_gradient_checkpointing_gives_the_same_gradients(self):
        model = tiny('dpa', num_classes=3, attn_stages=(1, 3)).train()
        x, labels = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        expected = gradients(copy.deepcopy(model), x, labels)
        model.set_grad_checkpointing()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            model(x)
        kept = sum(saved)
        model.set_grad_checkpointing(False)
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            model(x)
        assert kept < sum(saved) / 2
        model.set_grad_checkpointing()
        assert_same_gradients(gradients(model, x, labels), expected)

    def test_layer_decay_scales_the_attention_with_its_stage_not_with_the_head(self, dpa):
        names = {id(p): name for name, p in dpa.named_parameters()}
        groups = param_groups_layer_decay(dpa, layer_decay=0.5)
        scale = {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}
        assert scale.keys() == set(names.values())
        head = {name: s for name, s in scale.items() if name.split('.')[0] in ('neck', 'fc', 'global_pool')}
        assert set(head) == {'neck.weight', 'fc.weight', 'global_pool.p'}
        assert set(head.values()) == {1.0}
        attention = {s for name, s in scale.items() if name.startswith('layer3.attn.')}
        assert len(attention) == 1
        order = ['conv1', 'layer1.0', 'layer1.1', 'layer2.1', 'layer3.0', 'layer3.1', 'layer3.attn', 'layer4.0', 'neck']
        depths = [next(s for name, s in scale.items() if name.startswith(f'{part}.')) for part in order]
        assert depths == sorted(set(depths))

    def test_coarse_groups_are_the_stages_with_their_attention(self, dpa):
        groups = group_parameters(dpa, dpa.group_matcher(coarse=True))
        (stage3,) = [names for names in groups.values() if 'layer3.0.conv1.weight' in names]
        assert set(stage3) == {name for name, _ in dpa.named_parameters() if name.startswith('layer3.')}

    @pytest.mark.parametrize(
        ('attn', 'dtype'),
        [
            # CPUs are slow at float16
            pytest.param(a, d, marks=pytest.mark.slow if d == 'float16' and a not in ('dpa', 'nl') else ())
            for d in ('bfloat16', 'float16')
            for a in (None, *ATTENTIONS)
        ],
    )
    def test_autocast_stays_finite_with_inputs_30_times_larger(self, attn, dtype):
        dtype = getattr(torch, dtype)
        model = tiny(attn, num_classes=3)
        x = images(2, 3, 64, 64)
        with torch.no_grad():
            expected = model(x)
            with torch.autocast('cpu', dtype=dtype):
                got = model(x)
        assert F.cosine_similarity(got.float(), expected).min() > 0.98
        model.train()
        with torch.autocast('cpu', dtype=dtype):
            loss = F.cross_entropy(model(30 * x).float(), torch.tensor([0, 2]))
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        model.eval()
        with torch.no_grad(), torch.autocast('cpu', dtype=dtype):
            assert model(30 * x).isfinite().all()

    @every_model
    def test_channels_last_gives_the_same_numbers(self, attn):
        model = tiny(attn, num_classes=3)
        other = copy.deepcopy(model).to(memory_format=torch.channels_last)
        x, labels = images(3, 3, 64, 96), torch.tensor([0, 1, 2])
        x_last = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            maps = other.forward_features(x_last)
            assert maps.is_contiguous(memory_format=torch.channels_last)
            assert_same(maps, model.forward_features(x), attn)
        assert_same_gradients(gradients(other.train(), x_last, labels), gradients(model.train(), x, labels), 1e-3)

    @pytest.mark.slow
    def test_two_processes_train_as_one_without_unused_parameters(self, tmp_path):
        first, second = (torch.load(path, weights_only=True) for path in run_two('ddp_worker', tmp_path))
        for step in ('frozen', 'training'):
            assert all(torch.equal(first[step][name], second[step][name]) for name in first[step])
        model = freeze_batch_norm(ddp_worker.model())
        assert_same_gradients(first['frozen'], gradients(model, *ddp_worker.batch()))
        assert all(g.abs().max() > 0 for g in first['training'].values())


class TestCompilers:
    @pytest.fixture(autouse=True)
    def _fresh_compiler(self):
        torch.compiler.reset()

    @pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
    @most_models
    def test_torchscript_evaluates_and_trains_alike(self, attn):
        model = tiny(attn, num_classes=3)
        scripted = torch.jit.script(copy.deepcopy(model))
        with torch.no_grad():
            for shape in ((2, 3, 64, 64), (1, 3, 96, 64)):
                assert_same(scripted(images(*shape)), model(images(*shape)), attn)
        x, labels = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        assert_same_gradients(gradients(scripted.train(), x, labels), gradients(model.train(), x, labels), 1e-3)

    @pytest.mark.filterwarnings('ignore:.*torch.jit:FutureWarning', 'ignore:.*torch.jit:DeprecationWarning')
    @pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
    @pytest.mark.parametrize('grad', [True, False])
    @pytest.mark.parametrize('options', [{}, {'kernel_num': 2, 'gem_p': 3.0, 'gem_learnable': True, 'soft_kernel': 3}])
    @every_model
    def test_jit_trace_evaluates_alike_whatever_the_grad_mode(self, attn, options, grad):
        """As exporters of trackers and of OpenVINO call it; the trace is checked in another grad mode."""
        model = tiny(attn, num_classes=3, attn_args=options if attn in ('dpa', 'cpa', 'spa') else {})
        example = images(2, 3, 64, 64).requires_grad_(grad)
        with torch.set_grad_enabled(grad):
            traced = torch.jit.trace(model, example)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                for batch in (2, 3):
                    x = images(batch, 3, 64, 64, seed=batch)
                    assert_same(traced(x), model(x), attn)
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)  # no Python function is left in it
        assert model(images(2, 3, 64, 64)).requires_grad

    @every_model
    def test_evaluation_computes_the_same_with_and_without_gradients(self, attn):
        model = tiny(attn, num_classes=3)
        x, labels = images(3, 3, 64, 64), torch.tensor([0, 1, 2])
        with torch.no_grad():
            expected = model(x)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        trained = freeze_batch_norm(copy.deepcopy(model).train())
        assert_same_gradients(gradients(model, x, labels), gradients(trained, x, labels), 1e-3)

    @every_model
    def test_fx_trace_computes_the_same_at_any_size(self, attn):
        model = tiny(attn, num_classes=3)
        traced = torch.fx.symbolic_trace(model)
        with torch.no_grad():
            for shape in ((2, 3, 64, 64), (1, 3, 96, 70)):
                assert_same(traced(images(*shape)), model(images(*shape)), attn)
        trainable = torch.fx.symbolic_trace(model.train())
        x, labels = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        expected = gradients(copy.deepcopy(model), x, labels)
        assert_same_gradients(gradients(trainable, x, labels), expected, 1e-3)

    @few_models
    def test_compiles_to_one_graph_and_trains_alike(self, attn):
        model = tiny(attn, num_classes=3).train()
        x, labels = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        expected = gradients(copy.deepcopy(model), x, labels)
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
        assert_same_gradients(gradients(model, x, labels, run=compiled), expected, 1e-3)

    def test_compiles_to_one_graph_for_evaluation(self):
        model = tiny('dpa', num_classes=3)
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
        with torch.no_grad():
            assert_same(compiled(images(2, 3, 64, 64)), model(images(2, 3, 64, 64)))

    @pytest.mark.slow
    def test_compiles_to_one_graph_for_any_size(self):
        model = tiny('dpa', num_classes=3)
        compiled = torch.compile(model, fullgraph=True, backend='aot_eager', dynamic=True)
        with torch.no_grad():
            for shape in ((2, 3, 64, 64), (3, 3, 96, 64), (4, 3, 130, 70)):
                assert_same(compiled(images(*shape)), model(images(*shape)))

    @pytest.mark.slow
    def test_default_compiler_evaluates_and_trains_alike(self):
        model = tiny('dpa', num_classes=3)
        compiled = torch.compile(model, fullgraph=True)
        x, labels = images(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
        with torch.no_grad():
            assert_same(compiled(x), model(x))
        expected = gradients(copy.deepcopy(model).train(), x, labels)
        model.train()
        assert_same_gradients(gradients(model, x, labels, run=compiled), expected, 1e-3)

    @most_models
    def test_exported_program_takes_any_batch_and_size(self, attn):
        model = tiny(attn, num_classes=3)
        free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
        exported = torch.export.export(model, (images(3, 3, 96, 128),), dynamic_shapes=(free,))
        # up to torch 2.10, a guard on odd sizes comes along that nothing in the program needs
        program = exported.module(check_guards=False)
        with torch.no_grad():
            for shape in ((1, 3, 64, 64), (2, 3, 130, 70)):
                assert_same(program(images(*shape)), model(images(*shape)), attn)
