"""pytest plugin that turns timm's own test files on the models of this package; `run.py` loads it.

timm's tests take their models from `list_models`, from lists written into a `parametrize` mark, or by name in the body.
The first kind meets our models by itself, the other two are turned on them here. Everything else is deselected.
"""

from __future__ import annotations

from collections import Counter

import pytest
import timm
import torch

import timm_dpa  # noqa: F401  registers the models, before timm's test files list them

# Tests parametrised with a hand-written list: what follows the model's name in each case.
# Left out are test_catavgmax_unsupported, for models that reject this pooling, and those that timm's own ResNet
# fails, for want of something: test_feature_getter_stage_ends_torchscript, test_headless_checkpoint_reload,
# test_mobile_model_fusion_features, test_model_init_weights_after_to_empty.
RETARGETED = {
    'test_reset_classifier_keeps_pool': [()],
    'test_features_only_grad_checkpointing_backward': [()],
    'test_model_features_output_stride': [()],
    'test_prune_intermediate_layers_params_used': [()],
    'test_forward_after_prune_intermediate_layers': [()],
    'test_head_hidden_size': [({},), ({'global_pool': 'avg'},)],
    'test_features_only_feature_cls_class': [()],
    'test_prune_intermediate_layers_last_feature': [(True,)],
    'test_prune_to_stem_feature': [()],
    'test_forward_intermediates_stop_early_final_norm': [({},)],
    'test_resnetv2_stem_feature_odd_size': [({},)],
    'test_model_forward_torchscript_with_features_fx': [()],
    # test_model_input.py
    'test_export_tracks_reset_pool_in_head': [(3, 'max'), (0, '')],
    'test_export_tracks_reset_classifier_structure': [({}, None, None), ({}, 'avg', None)],
    # test_utils.py
    'test_freeze_unfreeze_root_parameters': [()],
}

# Tests of any classification backbone that name one in the body: that name.
STAND_INS = {
    'test_resnet_pruned_grad_checkpointing': 'test_resnet',
    'test_feature_hook_net_grad_checkpointing_order': 'xception41',
    'test_gcvit_batch_consistency': 'gcvit_xxtiny',
    'test_convit_dtype_change_after_forward': 'convit_tiny',
    # test_model_input.py
    'test_script_resolution_defaults_to_multispectral_source': 'resnet18',
    'test_conv_model_image_size_is_preprocessing_only': 'resnet18',
    'test_feature_wrapper_retains_input_contract': 'resnet18',
    'test_export_data_config_test_size_roundtrip': 'test_resnet',
    'test_export_tracks_reset_pool_and_omits_in_memory_weight_source': 'test_resnet',
    'test_export_does_not_inherit_training_regularization': 'test_resnet',
    # test_input_conv.py
    'test_create_model_transfers_multispectral_checkpoint': 'test_resnet',
    # test_utils.py
    'test_freeze_unfreeze': 'test_resnet',
    'test_freeze_unfreeze_string_input': 'test_resnet',
    'test_extract_spp_stats': 'test_resnet',
}

# Tests that download all released weights of a model
DOWNLOADING = {'test_model_load_pretrained', 'test_model_features_pretrained'}

_list_models = timm.list_models


def _list_models_with_ours(filter='', module='', **kwargs):
    """Our module wherever timm's tests ask for that of its ResNet."""
    if not isinstance(module, str) and 'resnet' in module:
        module = [*module, 'dpa_resnet']
    return _list_models(filter, module, **kwargs)


timm.list_models = _list_models_with_ours


class Plugin:
    def __init__(self, models: list[str], pretrained: bool) -> None:
        self.models = models
        self.pretrained = pretrained
        self.counts = {model: Counter() for model in models}
        self.found: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        name = metafunc.function.__name__
        if name in STAND_INS:
            self.found.add(name)
            metafunc.parametrize(
                'stand_in', [(STAND_INS[name], model) for model in self.models], ids=self.models, indirect=True
            )
            return
        # replaced on the definition, where pytest's own implementation of this hook reads them afterwards
        markers = metafunc.definition.own_markers
        for i, marker in enumerate(markers):
            if marker.name != 'parametrize' or 'model_name' not in marker.args[0]:
                continue
            argnames, cases = marker.args
            if name in RETARGETED:
                self.found.add(name)
                cases = [(model, *rest) if rest else model for model in self.models for rest in RETARGETED[name]]
            else:
                cases = [case for case in cases if _architecture(case) in self.models]
            markers[i] = pytest.mark.parametrize(argnames, cases).mark

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen, others = [], []
        for item in items:
            params = item.callspec.params if hasattr(item, 'callspec') else {}
            model = params['stand_in'][1] if 'stand_in' in params else _architecture(params.get('model_name'))
            offered = self.pretrained or item.originalname not in DOWNLOADING
            if model in self.models and offered and not params.get('vit'):  # a case that builds a ViT instead
                item.user_properties.append(('model', model))
                chosen.append(item)
            else:
                others.append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = chosen

    @pytest.fixture(autouse=True)
    def stand_in(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
        """Give our model to a test that asks for another one by name, and the same random numbers to every test."""
        torch.manual_seed(0)
        if not hasattr(request, 'param'):
            yield
            return
        named, model = request.param
        asked = []

        def replaced(function, **defaults):
            def call(model_name, *args, **kwargs):
                if model_name != named:
                    return function(model_name, *args, **kwargs)
                asked.append(model_name)
                return function(model, *args, **{**defaults, **kwargs})

            return call

        # num_classes: timm's models have a classifier unless told otherwise
        for owner, name, defaults in (
            (timm, 'create_model', {'num_classes': 5}),
            (request.module, 'create_model', {'num_classes': 5}),
            (request.module, 'resolve_model_input_args', {}),
        ):
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, replaced(getattr(owner, name), **defaults))
        yield
        assert asked, f'the test did not ask for {named}'

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # a test counts once, as its call; set-up and tear-down only where they end it
        if report.when == 'call' or report.outcome != 'passed':
            self.counts[dict(report.user_properties)['model']][report.outcome] += 1

    def pytest_unconfigure(self) -> None:
        missing = sorted({*RETARGETED, *STAND_INS} - self.found)
        if missing:
            print(f'not in the tests of timm {timm.__version__}: {", ".join(missing)}')
        outcomes = ('passed', 'failed', 'skipped')
        counts = (
            f'{model} ' + ', '.join(f'{count[outcome]} {outcome}' for outcome in outcomes)
            for model, count in self.counts.items()
        )
        print(f'timm {timm.__version__}: ' + '; '.join(counts))


def _architecture(case) -> str | None:
    """`arch` of a case, `arch.tag` or a tuple that starts with it."""
    name = case[0] if isinstance(case, tuple) else case
    return timm.models.get_arch_name(name) if isinstance(name, str) else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--models', required=True, help='architectures to test, separated by commas')
    parser.addoption('--pretrained', action='store_true', help='with the tests that download released weights')


def pytest_configure(config: pytest.Config) -> None:
    models = config.getoption('--models').split(',')
    unknown = [model for model in models if not timm.is_model(model)]
    if unknown:
        raise pytest.UsageError(f'unknown models: {", ".join(unknown)}')
    config.pluginmanager.register(Plugin(models, config.getoption('--pretrained')))
