"""What weights were trained on: on cards, in the manifest and the table of models, and for weights that follow."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.cli.test_zoo import SETTINGS
from tests.hub.test_release import UNREACHABLE, run_python
from tests.support.hub_client import HubClient
from tests.support.site import copy_package, models_of
from timm_dpa.hub.folder import build_folder
from timm_dpa.hub.lineage import list_source
from timm_dpa.hub.release import describe_release, release_model
from timm_dpa.weights.manifest import read_manifest

ABOUT = {
    'name': 'Street crops',
    'description': 'Crops of real vehicles on a street.',
    'synthetic': False,
    'license': 'CC BY 3.0',
    'credit': 'The people of the street',
}


@pytest.fixture(scope='module')
def about(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('about') / 'street.json'
    path.write_text(json.dumps(ABOUT))
    return path


@pytest.fixture(scope='module')
def mixed(standard, tmp_path_factory) -> Path:
    """The run, as if images of a data set that says nothing of itself had been among its batches."""
    run = tmp_path_factory.mktemp('mixed') / 'run'
    run.mkdir()
    for path in standard.iterdir():
        (run / path.name).symlink_to(path)
    data = json.loads((standard / 'data.json').read_text())
    bare = {'name': 'crops_1', **{key: data[key] for key in ('layout', 'train', 'test')}}
    (run / 'data.json').unlink()
    (run / 'data.json').write_text(json.dumps({**data, 'mix': [bare]}))
    return run


class TestCard:
    def test_names_real_images_with_license_and_credit(self, mixed, about, tmp_path):
        with pytest.raises(ValueError, match='--license'):
            build_folder(mixed, tmp_path / 'out', 'somebody/x')
        build_folder(mixed, tmp_path / 'out', 'somebody/x', license='apache-2.0', about={'crops_1': about})
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        text = ' '.join(card.text.split())
        terms = 'CC BY 3.0, credit: The people of the street'
        assert f'**Trained on synthetic images and on real images**: "Street crops", {terms}.' in text
        assert 'the training part of "Street crops"' in text
        assert f'Crops of real vehicles on a street. These images: {terms}.' in text
        assert f'Real images that the weights were trained on: "Street crops": {terms}.' in text
        assert 'crops_1' not in text
        data = card.data.to_dict()
        assert data['datasets'] == ['noisy-patterns', 'street-crops']
        assert {'synthetic-images', 'real-images'} <= set(data['tags'])
        first, second = data['trained_on']
        assert (first['name'], first['synthetic'], 'license' in first) == ('noisy | patterns', True, False)
        assert second == {
            'name': 'Street crops',
            'synthetic': False,
            **json.loads((mixed / 'data.json').read_text())['train'],
            'license': 'CC BY 3.0',
            'credit': 'The people of the street',
        }
        release = describe_release(tmp_path / 'out', 'x', 'x')
        assert release.trained_on == [first, second]

    def test_two_sets_of_one_name_are_told_apart_by_their_revision(self, mixed, about, tmp_path):
        run = tmp_path / 'run'
        run.mkdir()
        for path in mixed.iterdir():
            (run / path.name).symlink_to(path)
        data = json.loads((mixed / 'data.json').read_text())
        data['mix'][0].update(name=data['name'], train={**data['train'], 'revision': '0123456789abcdef'})
        (run / 'data.json').unlink()
        (run / 'data.json').write_text(json.dumps(data))
        build_folder(run, tmp_path / 'out', 'a/b', license='other', about={'0123456789abcdef': about})
        sources = ModelCard.load(tmp_path / 'out' / 'README.md').data.to_dict()['trained_on']
        assert [source['name'] for source in sources] == ['noisy | patterns', 'Street crops']

    def test_what_is_not_said_is_not_synthetic(self, mixed, tmp_path):
        build_folder(mixed, tmp_path / 'out', 'somebody/x', license='other')
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        assert '**Trained on synthetic images and on real images**: "crops_1".' in card.text
        assert [source['synthetic'] for source in card.data.to_dict()['trained_on']] == [True, False]

    @pytest.mark.parametrize(
        ('name', 'content', 'message'),
        [
            ('crops_2', ABOUT, r'about crops_2: no such data set here; there are noisy \| patterns, crops_1'),
            ('crops_1', {'licence': 'mit'}, 'wants name, description, license, credit and protocol'),
            ('crops_1', {'license': 3}, 'wants name, description, license, credit and protocol'),
        ],
    )
    def test_wrong_descriptions(self, mixed, tmp_path, name, content, message):
        (tmp_path / 'about.json').write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            build_folder(mixed, tmp_path / 'out', 'a/b', license='other', about={name: tmp_path / 'about.json'})
        assert not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def client(standard, tmp_path_factory):
    """A copy of the package with one release, of synthetic images."""
    site = copy_package(tmp_path_factory.mktemp('site'))
    release_model(
        standard, 'squares', manifest=site / 'timm_dpa' / 'weights' / 'manifest.json', models=models_of(site), half=True
    )
    with HubClient(tmp_path_factory.mktemp('home'), UNREACHABLE, site) as client:
        yield client


def restart(client: HubClient) -> HubClient:
    """Tags are registered when the package is imported."""
    client.__exit__()
    return client.__enter__()


@pytest.fixture(scope='module')
def released(client, mixed, about) -> HubClient:
    """The same with a second one, of real images too, which is the default from now on."""
    command = ['--package', '--tag', 'street', '--default', '--half', '--license', 'apache-2.0']
    status, _, errors = client.cli('publish', str(mixed), *command, '--about', f'crops_1={about}')
    assert status == 0, errors
    return restart(client)


class TestReleases:
    def test_a_new_default_goes_before_the_others(self, released, tmp_path):
        names = list(read_manifest(released.site / 'timm_dpa' / 'weights' / 'manifest.json'))
        assert names == ['reid_resnet18.street', 'reid_resnet18.squares']
        assert {path.name for path in models_of(released.site).iterdir()} == set(names)
        code = """
import timm, timm_dpa
for name in ('reid_resnet18', 'reid_resnet18.squares'):
    print(timm.create_model(name, pretrained=True).pretrained_cfg['tag'])
    print(timm_dpa.FeatureExtractor(name).describe()['model'])
"""
        out, _ = run_python(code, released.site, tmp_path)
        assert out.split() == ['street', 'reid_resnet18.street', 'squares', 'reid_resnet18.squares']

    def test_table_says_what_each_was_trained_on(self, released):
        status, out, _ = released.cli('models', 'reid_resnet18')
        assert status == 0
        tags = 'street (synthetic images and Street crops), squares (synthetic images only)'
        assert out.splitlines()[-1].endswith(f'  {tags}')

    def test_default_needs_a_tag_and_about_a_name(self, released, mixed):
        status, _, errors = released.cli('publish', str(mixed), '--repo-id', 'a/b', '--default')
        assert (status, errors) == (2, 'timm-dpa publish: --default goes with --tag\n')
        status, _, errors = released.cli('publish', str(mixed), '--repo-id', 'a/b', '--about', 'street.json')
        assert (status, errors) == (2, 'timm-dpa publish: --about street.json: must be NAME=FILE\n')


class TestFamilyOfOneTrunk:
    @pytest.fixture(scope='class')
    @staticmethod
    def zoo(released, trained, tmp_path_factory) -> Path:
        out = tmp_path_factory.mktemp('family') / 'zoo'
        command = ['zoo', '--data', str(trained.parent / 'patterns'), '--out', str(out), '--tag', 'after']
        command += ['--models', 'se_resnet18', 'cbam_resnet18', *SETTINGS, 'model.init_from=reid_resnet18.street']
        status, _, errors = released.cli(*command)
        assert status == 2
        assert '--license' in errors  # the images of the trunk's training are real
        assert not out.exists()
        status, _, errors = released.cli(*command, '--license', 'apache-2.0')
        assert status == 0, errors
        return out

    def test_starts_from_the_trunk(self, zoo):
        log = (zoo / 'runs' / 'se_resnet18' / 'run.log').read_text()
        assert re.search(
            r'backbone: \d+ tensors from reid_resnet18\.street; keep their initial values: fc, layer3\.attn', log
        )

    def test_cards_name_it_and_what_it_was_trained_on(self, zoo, trained):
        for name in ('se_resnet18', 'cbam_resnet18'):
            folder = zoo / 'models' / f'{name}.after'
            card = ModelCard.load(folder / 'README.md')
            text = ' '.join(card.text.split())
            assert (
                'Training started from the trunk (all but attention and classifier) of the weights '
                '`reid_resnet18.street` of timm-dpa, which were trained on 48 synthetic images of 8 vehicles '
                '("noisy | patterns") and 48 images of 8 vehicles ("Street crops", CC BY 3.0, credit: The people of '
                'the street). Then 1 epoch at 32 x 32 pixels: 48 synthetic images of 8 vehicles'
            ) in text
            assert '**Trained on synthetic images and on real images**: "Street crops", CC BY 3.0' in text
            assert 'model.init_from' not in text
            assert 'init_from: reid_resnet18.street' in (folder / 'recipe.yaml').read_text()
        data = json.loads((trained / 'data.json').read_text())
        releases = list(read_manifest(zoo / 'weights.json').values())
        assert [[source['name'] for source in release.trained_on] for release in releases] == [
            ['noisy | patterns', 'Street crops']
        ] * 2
        assert all(release.trained_on[0] == list_source(data) for release in releases)

    def test_a_member_can_be_released_as_it_is(self, released, zoo, tmp_path):
        status, _, errors = released.cli(
            'publish',
            str(zoo / 'runs' / 'se_resnet18'),
            '--package',
            '--tag',
            'after',
            '--license',
            'apache-2.0',
            '--half',
        )
        assert status == 0, errors
        folder = models_of(released.site) / 'se_resnet18.after'
        ours, theirs = (
            load_file(path / 'model.safetensors') for path in (folder, zoo / 'models' / 'se_resnet18.after')
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
