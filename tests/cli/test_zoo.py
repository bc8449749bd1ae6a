"""timm-dpa zoo: a family trained alike, resumed, described and made ready for the Hub."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.support.vehicles import write_vehicles
from timm_dpa.catalog import match_models
from timm_dpa.cli.main import main
from timm_dpa.train.data.provenance import write_about
from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.train.zoo import train_family
from timm_dpa.weights.manifest import read_manifest

#: full architectures, since a tag can say no options, but hardly any images
SETTINGS = [
    'data.image_size=32',
    'data.workers=0',
    'augment.pad=2',
    'batch.size=16',
    'optim.lr=1e-3',
    'schedule.epochs=1',
    'schedule.early_sizes=[]',
    'schedule.warmup_epochs=0',
    'run.precision=fp32',
    'run.tensorboard=false',
]
NAMES = ['reid_resnet18', 'se_resnet18']


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = write_vehicles(tmp_path_factory.mktemp('data') / 'Squares-1')
    write_about(root, 'squares', 'Colored squares under noise.', synthetic=True)
    return root


@pytest.fixture(scope='module')
def street(tmp_path_factory) -> Path:
    return write_vehicles(tmp_path_factory.mktemp('data') / 'street', identities=9, seed=1)


def zoo(data: Path, out: Path, *argv: str) -> int:
    return main(['zoo', '--data', str(data), '--out', str(out), *argv, *SETTINGS])


def state(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob('*')}


@pytest.fixture(scope='module')
def family(data, street, tmp_path_factory) -> Path:
    """Stopped, as it were, after the first of two."""
    out = tmp_path_factory.mktemp('family') / 'zoo'
    assert zoo(data, out, '--test', str(street), '--models', NAMES[0]) == 0
    weights = out / 'models' / f'{NAMES[0]}.flagship_squares_1' / 'model.safetensors'
    before = weights.stat().st_mtime_ns
    assert zoo(data, out, '--test', str(street), '--models', 'reid_resnet18', 'se_*18') == 0
    assert weights.stat().st_mtime_ns == before
    return out


class TestFamily:
    def test_manifest_has_digests_and_metrics_of_all(self, family, data, street):
        releases = list(read_manifest(family / 'weights.json').values())
        assert [release.name for release in releases] == [f'{name}.flagship_squares_1' for name in NAMES]
        for release in releases:
            weights = family / 'models' / release.name / 'model.safetensors'
            assert release.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
            run = family / 'runs' / release.architecture
            evaluations = (run, family / 'tests' / release.architecture / 'street')
            assert [row['data'] for row in release.metrics] == ['squares', 'street']
            for row, folder in zip(release.metrics, evaluations, strict=True):
                metrics = json.loads((folder / 'evaluation.json').read_text())['metrics']
                for name, key in (('mAP', 'mAP'), ('Rank-1', 'rank1'), ('mINP', 'mINP')):
                    assert row[name] == pytest.approx(100 * metrics[key], abs=0.00501)

    def test_further_tests_are_those_of_the_command_eval(self, family, street, tmp_path):
        run = family / 'runs' / NAMES[1]
        assert main(['eval', '--model', str(run), '--data', str(street), '--out', str(tmp_path)]) == 0
        expected, found = (
            json.loads((folder / 'evaluation.json').read_text())
            for folder in (tmp_path, family / 'tests' / NAMES[1] / 'street')
        )
        assert found == expected

    def test_folders_load_and_are_of_one_recipe(self, family):
        recipes = []
        for name in NAMES:
            folder = family / 'models' / f'{name}.flagship_squares_1'
            model = timm.create_model(f'local-dir:{folder}', pretrained=True)
            assert model.pretrained_cfg['architecture'] == name
            stored = load_file(folder / 'model.safetensors')
            trained = load_file(family / 'runs' / name / 'model' / 'model.safetensors')
            assert stored['conv1.weight'].equal(trained['conv1.weight'].half())
            recipe = Recipe.from_dict(json.loads((family / 'runs' / name / 'evaluation.json').read_text())['recipe'])
            assert (recipe.loss.metric, recipe.model.init_from) == ('supcon', None)  # of rendered/flagship
            recipe.model.name = ''
            recipes.append(recipe)
            card = ModelCard.load(folder / 'README.md')
            assert f"'hf-hub:ORG/{folder.name}'" in card.text
            assert '**Trained on synthetic images only.**' in card.text
            assert 'street' in card.text
        assert recipes[0] == recipes[1]

    def test_again_changes_nothing_and_what_is_missing_is_made(self, family, data, street, capsys):
        command = ['--test', str(street), '--models', *NAMES]
        before = state(family / 'models') | state(family / 'tests')
        assert zoo(data, family, *command) == 0
        assert state(family / 'models') | state(family / 'tests') == before
        out = capsys.readouterr().out
        (release, _) = read_manifest(family / 'weights.json').values()
        assert f'{release.name}: ' in out
        assert f'mAP {release.metrics[0]["mAP"]:.2f} %' in out

        weights = family / 'models' / release.name / 'model.safetensors'
        content = weights.read_bytes()
        weights.write_bytes(content[:1000])  # a copy that was cut
        assert zoo(data, family, *command) == 0
        assert weights.read_bytes() == content

    def test_all_go_to_an_organization(self, family, tmp_path):
        look = tmp_path / 'look'
        command = ['publish', '--all', '--zoo', str(family), '--org', 'somebody', '--dry-run', str(look)]
        assert main(command) == 0
        for name in NAMES:
            card = (look / f'{name}.flagship_squares_1' / 'README.md').read_text()
            assert f"'hf-hub:somebody/{name}.flagship_squares_1'" in card
            assert 'ORG/' not in card


class TestWrongUse:
    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            (['--models', 'resnet18'], 'no model is called resnet18'),
            (['--tag', 'My-Tag'], 'wrong tag'),
            (['--models', 'se_resnet18', '--test', 'missing'], 'missing: no such file or folder'),
            (['--models', 'se_resnet18', '--test', 'STREET', 'STREET'], 'another test is called street as well'),
            (['--models', 'se_resnet18', 'model.args={ibn: true}'], 'a tag cannot say options'),
            (['--models', 'se_resnet18', '--init', 'imagenet'], '--license'),
            (['--models', 'se_resnet18', '--init', 'dpa_resnet50'], 'say which of its weights (dpa_resnet50.'),
        ],
    )
    def test_shows_before_the_work(self, data, street, tmp_path, capsys, argv, message):
        words = [str(street) if word == 'STREET' else word for word in argv]
        settings = [word for word in words if '=' in word]
        options = [word for word in words if '=' not in word]
        assert main(['zoo', '--data', str(data), '--out', str(tmp_path / 'zoo'), *options, *SETTINGS, *settings]) == 2
        errors = capsys.readouterr().err
        assert errors.count('\n') == 1
        assert message in errors
        assert not (tmp_path / 'zoo').exists()

    def test_photographs_need_a_license(self, street, tmp_path, capsys):
        assert zoo(street, tmp_path / 'zoo', '--models', 'se_resnet18') == 2
        assert '--license' in capsys.readouterr().err
        assert not (tmp_path / 'zoo').exists()

    def test_one_that_diverges_is_named(self, data, tmp_path):
        recipe = Recipe().override([*SETTINGS, 'optim.lr=1e6', 'optim.name=sgd', 'optim.clip_grad=null'])
        with pytest.raises(
            RuntimeError, match=r'reid_resnet18: diverged, see the log in .*runs; try a smaller optim\.lr'
        ):
            list(train_family(['reid_resnet18'], recipe, data, tmp_path / 'zoo'))

    def test_patterns(self):
        assert match_models('dpa_*') == ['dpa_resnet18', 'dpa_resnet50']
        assert len(match_models('*_resnet50', 'nl_*')) == 9
