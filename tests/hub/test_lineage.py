"""Runs that start from other runs: what the card says of them, and that its commands train the same model again."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa.cli.main import main
from timm_dpa.hub.card import read_facts
from timm_dpa.hub.folder import build_folder
from timm_dpa.hub.lineage import (
    describe_runs,
    only_synthetic,
    training_runs,
    training_sources,
    write_recipes,
)
from timm_dpa.train.data.provenance import write_about
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.trainer import train
from timm_dpa.weights.fetch import MODELS


@pytest.fixture(scope='module')
def data(trained) -> Path:
    """That of the first run."""
    return trained.parent / 'patterns'


@pytest.fixture(scope='module')
def second(trained, data, tmp_path_factory) -> Path:
    """An epoch more from the weights of the first run."""
    run = tmp_path_factory.mktemp('runs') / 'second'
    train(quick('schedule.epochs=1', 'run.evaluate_every=0', f'model.checkpoint={trained}'), data, run)
    return run


def changed(run: Path, folder: Path, **model) -> Path:
    """A copy of a run with another start."""
    shutil.copytree(run, folder)
    recipe = yaml.safe_load((run / 'recipe.yaml').read_text())
    recipe['model'].update(model)
    (folder / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    return folder


class TestCard:
    def test_names_the_images_of_all_runs(self, trained, second, tmp_path):
        build_folder(second, tmp_path / 'out', 'somebody/two')
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        assert 'In 2 training runs, each from the weights of the one before' in card.text
        assert '1. 2 epochs at 32 x 32 pixels: 48 synthetic images of 8 vehicles' in card.text
        assert '2. 1 epoch at 32 x 32 pixels: the same images.' in card.text
        assert '**Trained on synthetic images only.**' in card.text
        assert card.data.license == 'apache-2.0'
        for path in (tmp_path / 'out').glob('*.[my]*'):  # README.md, recipe.yaml, recipe_1.yaml
            assert str(trained.parent) not in path.read_text()

    @pytest.mark.parametrize('start', ['checkpoint', 'init_from'])
    def test_its_commands_train_the_same_model_again(self, trained, second, data, tmp_path, monkeypatch, start):
        run = second
        if start == 'init_from':
            run = tmp_path / 'second'
            settings = f'model.init_from={trained / "model" / "model.safetensors"}'
            train(quick('schedule.epochs=1', 'run.evaluate_every=0', settings), data, run)
        folder = tmp_path / 'somewhere' / 'else'
        build_folder(run, folder, 'somebody/two')
        (folder / 'noisy-|-patterns').symlink_to(data)
        monkeypatch.chdir(folder)
        commands = read_facts(Path()).commands
        assert len(commands) == 2
        for command in commands:
            assert main(shlex.split(command)[1:]) == 0
        weights, again = (load_file(path / 'model.safetensors') for path in (run / 'model', Path('runs/two/model')))
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[name], again[name]) for name in weights)

    def test_trunk_of_a_run_of_another_architecture(self, trained, data, tmp_path):
        settings = ['schedule.epochs=1', 'run.evaluate_every=0', 'model.name=se_resnet18', f'model.init_from={trained}']
        args = 'model.args={layers: [1, 1, 1, 1], channels: [8, 16, 32, 64]}'
        train(quick(*settings, args), data, tmp_path / 'run')
        log = (tmp_path / 'run' / 'run.log').read_text()
        assert f'tensors from {trained}; keep their initial values: fc, layer3.attn; not used: layer3.attn' in log
        text = describe_runs(training_runs(RunFolder(tmp_path / 'run')))
        assert '2. 1 epoch at 32 x 32 pixels from the trunk of that `dpa_resnet18`: the same images.' in text

    def test_other_images_of_a_later_run(self, trained, second, tmp_path):
        other = write_vehicles(tmp_path / 'street', identities=9)
        run = tmp_path / 'run'
        train(quick('schedule.epochs=1', 'run.evaluate_every=0', f'model.checkpoint={second}'), other, run)
        runs = training_runs(RunFolder(run))
        text = describe_runs(runs)
        assert 'In 3 training runs' in text
        assert '3. 1 epoch at 32 x 32 pixels: 36 images of 6 vehicles, the training part of "street"' in text
        assert not only_synthetic(training_sources(runs))  # nobody said so
        with pytest.raises(ValueError, match='--license'):
            build_folder(run, tmp_path / 'out', 'somebody/three')
        write_about(other, 'street', 'More squares.', synthetic=True)
        train(quick('schedule.epochs=1', 'run.evaluate_every=0', f'model.checkpoint={second}'), other, run)
        assert only_synthetic(training_sources(training_runs(RunFolder(run))))


@pytest.fixture(scope='module')
def street(tmp_path_factory):
    root = write_vehicles(tmp_path_factory.mktemp('mix') / 'street', identities=9)
    write_about(root, 'a real street', 'Photographs of a street.', synthetic=False)
    return root


@pytest.fixture(scope='module')
def mixed(data, street, tmp_path_factory):
    """On synthetic vehicles, with real ones mixed in."""
    run = tmp_path_factory.mktemp('mix') / 'run'
    train(quick('schedule.epochs=1', 'run.evaluate_every=0', f'data.mix=[{street}]'), data, run)
    return run


class TestMixedRun:
    def test_the_card_names_every_source(self, mixed, street, tmp_path):
        build_folder(mixed, tmp_path / 'out', 'somebody/mixed', license='other')
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        text = ' '.join(card.text.split())
        assert '48 synthetic images of 8 vehicles, the training part of "noisy | patterns"' in text
        assert 'Mixed into every batch: 36 images of 6 vehicles, the training part of "a real street"' in text
        assert 'Photographs of a street.' in text
        assert 'synthetic images only' not in text
        for path in (tmp_path / 'out').glob('*.[my]*'):
            assert str(street.parent) not in path.read_text()

    def test_a_license_must_be_given_for_any_real_source(self, mixed, data, street, tmp_path):
        assert not only_synthetic(training_sources(training_runs(RunFolder(mixed))))
        with pytest.raises(ValueError, match='--license'):
            build_folder(mixed, tmp_path / 'out', 'somebody/mixed')
        other = write_vehicles(tmp_path / 'other', identities=9, seed=1)
        write_about(other, 'other renders', 'Squares.', synthetic=True)
        run = tmp_path / 'run'
        train(quick('schedule.epochs=1', 'run.evaluate_every=0', f'data.mix=[{other}]'), data, run)
        assert only_synthetic(training_sources(training_runs(RunFolder(run))))

    def test_its_command_trains_the_same_model_again(self, mixed, data, street, tmp_path, monkeypatch):
        folder = tmp_path / 'card'
        build_folder(mixed, folder, 'somebody/mixed', license='other')
        (folder / 'noisy-|-patterns').symlink_to(data)
        (folder / 'a-real-street').symlink_to(street)
        monkeypatch.chdir(folder)
        (command,) = read_facts(Path()).commands
        assert main(shlex.split(command)[1:]) == 0
        weights, again = (load_file(path / 'model.safetensors') for path in (mixed / 'model', Path('runs/mixed/model')))
        assert all(torch.equal(weights[name], again[name]) for name in weights)


class TestStart:
    @pytest.mark.parametrize(
        'start',
        [
            {'checkpoint': 'gone/model.safetensors'},
            {'init_from': 'gone/weights.pth'},
            {'name': 'local-dir:gone'},
        ],
    )
    def test_weights_of_unknown_origin_are_said(self, trained, tmp_path, start):
        run = changed(trained, tmp_path / 'run', **start)
        runs = training_runs(RunFolder(run))
        assert len(runs) == 1
        assert not only_synthetic(training_sources(runs))
        assert 'from weights whose own training data are not recorded' in describe_runs(runs)

    def test_what_a_run_did(self, trained, tmp_path):
        """Epochs and their sizes; without any, the parts that were added."""
        (run,) = training_runs(RunFolder(trained))
        size = run.recipe.data.image_size[0]
        for settings, words in (
            (
                ['schedule.epochs=3', 'schedule.early_sizes=[[2, 32]]'],
                f'3 epochs at {size} x {size} pixels, the first 2 at 32 pixels: ',
            ),
            (
                ['schedule.epochs=0', 'run.whiten=3', 'run.whiten_images=1600'],
                'a whitening fitted to 1,600 images, no step: ',
            ),
            (
                ['schedule.epochs=0', 'run.whiten=3', 'run.whiten_images=64', 'model.args={color_norm: true}'],
                'color normalization, and a whitening fitted to 64 images, no step: ',
            ),
        ):
            later = dataclasses.replace(run, recipe=run.recipe.override([*settings, 'model.checkpoint=runs/a']))
            assert f'\n2. {words}' in describe_runs([run, later])

    def test_weights_of_the_hub_are_named_instead(self, trained, tmp_path):
        run = changed(trained, tmp_path / 'run', init_from='timm/resnet18.a1_in1k')
        runs = training_runs(RunFolder(run))
        assert not only_synthetic(training_sources(runs))
        assert 'not recorded' not in describe_runs(runs)
        build_folder(run, tmp_path / 'out', 'somebody/x', license='other')
        assert 'had the weights of [timm/resnet18.a1_in1k]' in (tmp_path / 'out' / 'README.md').read_text()

    def test_released_weights_are_named_too(self, trained, tmp_path):
        runs = training_runs(RunFolder(changed(trained, tmp_path / 'run', name='dpa_resnet50.rendered')))
        assert only_synthetic(training_sources(runs))  # as the manifest says
        text = describe_runs(runs)
        assert text.startswith(
            'Training started from the weights `dpa_resnet50.rendered` of timm-dpa, which were trained'
        )
        assert (
            'trained on 36,000 synthetic images of 3,000 vehicles ("timm-dpa rendered vehicles").\n\nThen 2 epoch'
            in text
        )

    def test_trunk_of_released_weights_of_another_architecture(self, trained, tmp_path):
        """By their name, or by a file of the same content."""
        model = {'name': 'se_resnet50', 'args': {}}
        starts = ['dpa_resnet50.rendered_kit', str(MODELS / 'dpa_resnet50.rendered_kit')]
        runs = [
            training_runs(RunFolder(changed(trained, tmp_path / str(k), init_from=starts[k], **model))) for k in (0, 1)
        ]
        texts = [describe_runs(each) for each in runs]
        assert texts[0] == texts[1]
        trunk = 'the trunk (all but attention and classifier) of the weights `dpa_resnet50.rendered_kit`'
        assert texts[0].startswith(f'Training started from {trunk} of timm-dpa')
        assert not any(only_synthetic(training_sources(each)) for each in runs)
        for each in runs:
            write_recipes(each, tmp_path, 'x')
            assert 'init_from: dpa_resnet50.rendered_kit\n' in (tmp_path / 'recipe.yaml').read_text()

    def test_trunk_is_what_their_name_gives_the_same_architecture_too(self, trained, tmp_path):
        """For models that are to be compared; their file gives all of them."""
        model = {'name': 'dpa_resnet50', 'args': {}}
        texts, recipes = [], []
        for start in ('dpa_resnet50.rendered_kit', str(MODELS / 'dpa_resnet50.rendered_kit')):
            runs = training_runs(RunFolder(changed(trained, tmp_path / str(len(texts)), init_from=start, **model)))
            texts.append(describe_runs(runs))
            write_recipes(runs, tmp_path, 'x')
            recipes.append(yaml.safe_load((tmp_path / 'recipe.yaml').read_text())['model'])
        assert texts[0].startswith('Training started from the trunk')
        assert texts[1].startswith('Training started from the weights `dpa_resnet50.rendered_kit`')
        assert (recipes[0]['name'], recipes[0]['init_from']) == ('dpa_resnet50', 'dpa_resnet50.rendered_kit')
        assert (recipes[1]['name'], recipes[1]['init_from']) == ('dpa_resnet50.rendered_kit', None)

    def test_weights_whose_embeddings_were_the_aim_are_named(self, trained, tmp_path):
        run = changed(trained, tmp_path / 'run')
        recipe = yaml.safe_load((run / 'recipe.yaml').read_text())
        recipe['loss'].update(pull=1.0, teacher='dpa_resnet50.rendered')
        (run / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
        runs = training_runs(RunFolder(run))
        assert describe_runs(runs).endswith(
            'Its embeddings were pulled toward those of the weights `dpa_resnet50.rendered`, which were trained on '
            '36,000 synthetic images of 3,000 vehicles ("timm-dpa rendered vehicles").'
        )
        assert [source['images'] for source in training_sources(runs)] == [36000, 48]
        assert only_synthetic(training_sources(runs))
        recipe['loss'].update(teacher='hf-hub:somebody/else')
        (run / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
        assert not only_synthetic(training_sources(training_runs(RunFolder(run))))

    def test_something_of_two_weights_is_of_unknown_origin(self, trained, tmp_path):
        model = {'name': 'dpa_resnet50.rendered', 'init_from': 'gone/weights.pth', 'args': {}}
        runs = training_runs(RunFolder(changed(trained, tmp_path / 'run', **model)))
        assert not only_synthetic(training_sources(runs))
        assert 'from weights whose own training data are not recorded' in describe_runs(runs)

    def test_an_architecture_alone_does_not_say_which(self, trained, tmp_path):
        runs = training_runs(RunFolder(changed(trained, tmp_path / 'run', init_from='dpa_resnet50')))
        with pytest.raises(
            ValueError, match=r'init_from=dpa_resnet50: say which of its weights \(dpa_resnet50\.rendered'
        ):
            only_synthetic(training_sources(runs))

    def test_runs_in_a_circle_end(self, trained, tmp_path):
        one = changed(trained, tmp_path / 'one', checkpoint=str(tmp_path / 'two'))
        changed(trained, tmp_path / 'two', checkpoint=str(one))
        assert len(training_runs(RunFolder(one))) == 2

    def test_damaged_record_is_named(self, trained, tmp_path):
        run = changed(trained, tmp_path / 'run')
        (run / 'data.json').write_text('{')
        with pytest.raises(ValueError, match=r'data\.json: cannot be read'):
            training_runs(RunFolder(run))
        (run / 'data.json').write_text(json.dumps({}))
        with pytest.raises(ValueError, match=r'data\.json'):
            training_runs(RunFolder(run))
