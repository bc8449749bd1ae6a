"""The folder that is published: what is in it, that it loads, and what its card says."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from tests.support.site import MODEL_FILES
from timm_dpa.cli.main import main
from timm_dpa.hub.folder import build_folder, is_finished, reuse_folder
from timm_dpa.hub.golden import GOLDEN_FILE, check_golden
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.weights.fetch import WeightsError


def listing(folder: Path) -> dict[str, str]:
    """Name -> digest of all files."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('folder') / 'model'
    build_folder(trained, out, 'somebody/small-dpa')
    return out


@pytest.fixture(scope='module')
def card(folder) -> ModelCard:
    return ModelCard.load(folder / 'README.md')


class TestFolder:
    def test_holds_what_a_reader_of_the_hub_expects(self, folder, trained):
        assert list(listing(folder)) == MODEL_FILES
        assert is_finished(folder)
        assert (folder / 'model.safetensors').read_bytes() == (trained / 'model' / 'model.safetensors').read_bytes()
        assert (folder / 'recipe.yaml').read_bytes() == (trained / 'recipe.yaml').read_bytes()
        with Image.open(folder / 'ranks.png') as picture:
            assert picture.width > 1000

    def test_the_same_run_gives_the_same_bytes(self, folder, trained, tmp_path):
        build_folder(trained, tmp_path / 'again', 'somebody/small-dpa')
        assert listing(tmp_path / 'again') == listing(folder)

    def test_configuration_is_what_timm_and_transformers_take(self, folder):
        config = json.loads((folder / 'config.json').read_text())
        assert config['architecture'] == 'dpa_resnet18'
        assert config['num_classes'] == 0
        assert 'num_classes' not in config['model_args']
        assert config['pretrained_cfg']['license'] == 'apache-2.0'
        assert config['pretrained_cfg']['input_size'] == [3, 32, 32]
        model = timm.create_model(f'local-dir:{folder}', pretrained=True)
        with torch.no_grad():
            pooled = model.forward_features(torch.zeros(1, 3, 32, 32)).shape[2:]
        assert config['pretrained_cfg']['pool_size'] == list(pooled)

    def test_golden_tensors_are_the_embeddings_of_drawn_vehicles(self, folder):
        golden = load_file(folder / GOLDEN_FILE)
        model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        transform = create_transform(**resolve_model_data_config(model))
        images = torch.stack([transform(draw_vehicle(identity, 0)) for identity in range(2)])
        with torch.no_grad():
            expected = F.normalize(model(images), dim=1)
        torch.testing.assert_close(golden['embedding'], expected, rtol=0, atol=1e-5)
        assert golden['pixels'].dtype == torch.uint8
        assert golden['pixels'].shape == (2, 3, 32, 32)
        assert check_golden(folder) <= 1e-5

    def test_golden_tensors_notice_other_weights(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / 'other')
        weights = load_file(folder / 'model.safetensors')
        weights['conv1.weight'] = weights['conv1.weight'].flip(0)
        save_file(weights, tmp_path / 'other' / 'model.safetensors')
        with pytest.raises(WeightsError, match='embeddings differ by'):
            check_golden(tmp_path / 'other')

    def test_only_what_names_the_repository_changes_for_another_one(self, folder, tmp_path):
        reuse_folder(folder, tmp_path / 'out', 'other/small-dpa')
        before, after = listing(folder), listing(tmp_path / 'out')
        assert {name for name in before if before[name] != after[name]} == {
            'README.md',
            'reid_config.json',  # options of its own, which reid can have from the repository only
            'release.json',
        }
        assert (tmp_path / 'out' / 'weights.safetensors').is_symlink()
        text = (folder / 'README.md').read_text()
        new = (tmp_path / 'out' / 'README.md').read_text()
        assert new == text.replace('somebody/small-dpa', 'other/small-dpa')
        assert text.count('somebody/small-dpa') == 5

    def test_a_card_that_was_edited_is_kept_or_named_but_never_overwritten(self, folder, tmp_path):
        edited = tmp_path / 'edited'
        shutil.copytree(folder, edited)
        with (edited / 'README.md').open('a') as card:
            card.write('\nA sentence of ours.\n')
        reuse_folder(edited, tmp_path / 'same', 'somebody/small-dpa')
        assert listing(tmp_path / 'same') == listing(edited)
        with pytest.raises(ValueError, match=r'edited/README\.md: was edited by hand .*edit release\.json'):
            reuse_folder(edited, tmp_path / 'out', 'other/small-dpa')
        assert not (tmp_path / 'out').exists()


class TestCard:
    def test_metadata(self, card):
        data = card.data.to_dict()
        assert data['library_name'] == 'timm'
        assert data['pipeline_tag'] == 'image-feature-extraction'
        assert data['license'] == 'apache-2.0'
        assert 'base_model' not in data
        assert {'vehicle-re-identification', 'uav'} <= set(data['tags'])

    def test_results_are_those_of_the_run(self, card, trained):
        written = json.loads((trained / 'evaluation.json').read_text())
        results = {result.metric_name: result for result in card.data.eval_results}
        for name, key in (
            ('mAP', 'mAP'),
            ('Rank-1', 'rank1'),
            ('Rank-5', 'rank5'),
            ('Rank-10', 'rank10'),
            ('mINP', 'mINP'),
        ):
            result = results[f'{name} (%)']
            assert result.metric_value == pytest.approx(100 * written['metrics'][key], abs=0.00501)
            assert result.dataset_revision == written['data']['test']['revision']
            assert f'| {result.metric_value:.2f} |' in card.text
        assert card.data.model_name == 'small-dpa'

    def test_text_says_what_matters(self, card, trained):
        text = card.text
        data = json.loads((trained / 'data.json').read_text())
        assert text.index('import timm_dpa') < text.index('import timm\n') < text.index("'hf-hub:somebody/small-dpa'")
        assert f'{data["train"]["images"]} synthetic images of {data["train"]["identities"]} vehicles' in text
        assert 'Colored squares under noise.' in text
        assert '**Trained on synthetic images only.**' in text
        assert '| noisy \\| patterns |' in text  # one cell
        for word in ('Tracking vehicles means tracking people', '## License', '@article{guo2024dual'):
            assert word in text
        assert '{{' not in text
        assert '{%' not in text
        assert str(trained.parent) not in text

    def test_python_example_runs(self, card, folder, tmp_path):
        example = re.search(r'```python\n(.*?)```', card.text, flags=re.DOTALL).group(1)
        example = example.replace('hf-hub:somebody/small-dpa', f'local-dir:{folder}')
        draw_vehicle(0, 0).save(tmp_path / 'crop.jpg')
        code = f'{example}\nprint(tuple(embedding.shape), round(float(embedding.norm()), 4))'
        done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == '(1, 64) 1.0'

    def test_yaml_is_what_a_plain_parser_reads(self, folder):
        _, header, _ = (folder / 'README.md').read_text().split('---\n', 2)
        assert yaml.safe_load(header)['model-index'][0]['name'] == 'small-dpa'


class TestWhatMustBeSaid:
    def test_license_of_weights_from_images_of_somebody(self, trained, tmp_path):
        run = tmp_path / 'run'
        shutil.copytree(trained, run)
        data = json.loads((run / 'data.json').read_text())
        (run / 'data.json').write_text(json.dumps({**data, 'synthetic': False}))
        with pytest.raises(ValueError, match='--license'):
            build_folder(run, tmp_path / 'out', 'somebody/x')
        build_folder(run, tmp_path / 'out', 'somebody/x', license='cc-by-nc-4.0')
        text = (tmp_path / 'out' / 'README.md').read_text()
        assert 'license: cc-by-nc-4.0' in text
        assert 'synthetic images' not in text
        assert json.loads((tmp_path / 'out' / 'config.json').read_text())['pretrained_cfg']['license'] == 'cc-by-nc-4.0'

    def test_synthetic_data_after_weights_from_elsewhere_are_not_synthetic_only(self, trained, tmp_path):
        run = tmp_path / 'run'
        shutil.copytree(trained, run)
        recipe = yaml.safe_load((run / 'recipe.yaml').read_text())
        recipe['model']['init_from'] = 'timm/resnet18.a1_in1k'
        (run / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
        with pytest.raises(ValueError, match='--license'):
            build_folder(run, tmp_path / 'out', 'somebody/x')
        build_folder(run, tmp_path / 'out', 'somebody/x', license='other')
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        assert card.data.base_model == 'timm/resnet18.a1_in1k'
        assert 'synthetic images only' not in card.text

    def test_training_data_of_a_bare_model(self, trained, tmp_path):
        bare = tmp_path / 'bare'
        shutil.copytree(trained / 'model', bare)
        with pytest.raises(ValueError, match='--trained-on'):
            build_folder(bare, tmp_path / 'out', 'somebody/x', license='mit')
        build_folder(bare, tmp_path / 'out', 'somebody/x', license='mit', trained_on='Nothing: random weights.')
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        assert 'Nothing: random weights.' in card.text
        assert 'No results were measured.' in card.text
        assert card.data.eval_results is None
        assert not (tmp_path / 'out' / 'recipe.yaml').exists()

    def test_commands_give_the_figures_again(self, trained, tmp_path):
        data, chosen = trained.parent / 'patterns', json.loads((trained / 'evaluation.json').read_text())
        names = sorted({path.name.partition('_')[0] for path in (data / 'image_query').glob('*.jpg')})[:2]
        options = [
            '--protocol',
            'cross-camera',
            '--draws',
            '3',
            '--seed',
            '2',
            '--rerank',
            '--flip',
            '--queries',
            *names,
        ]
        main(
            [
                'eval',
                '--model',
                str(trained),
                '--data',
                str(data),
                '--out',
                str(tmp_path / 'more'),
                *options,
                '--queries',
                *names,
            ]
        )
        build_folder(trained, tmp_path / 'out', 'somebody/x', results=[tmp_path / 'more'])
        text = ModelCard.load(tmp_path / 'out' / 'README.md').text
        commands = re.findall(r'^timm-dpa (eval .*)$', text, flags=re.MULTILINE)
        expected = [chosen, json.loads((tmp_path / 'more' / 'evaluation.json').read_text())]
        for command, written in zip(commands, expected, strict=True):
            words = shlex.split(command)
            assert words[1:5] == ['--model', 'hf-hub:somebody/x', '--data', 'noisy-|-patterns']
            words[2], words[4] = str(trained), str(data)
            main([*words, '--out', str(tmp_path / 'again'), '--overwrite'])
            again = json.loads((tmp_path / 'again' / 'evaluation.json').read_text())
            assert again['metrics'] == pytest.approx(written['metrics'], abs=2e-3)
            assert again['settings'] == written['settings']

    def test_further_results_and_pictures_of_ones_own(self, trained, tmp_path):
        results = tmp_path / 'results'
        results.mkdir()
        content = json.loads((trained / 'evaluation.json').read_text())
        content['data'] = {**content['data'], 'name': 'street', 'description': 'A street.'}
        del content['epoch']
        (results / 'evaluation.json').write_text(json.dumps(content))
        pictures = trained.parent / 'patterns'
        build_folder(trained, tmp_path / 'out', 'somebody/x', results=[results], pictures=pictures)
        card = ModelCard.load(tmp_path / 'out' / 'README.md')
        assert {result.dataset_name for result in card.data.eval_results} == {'noisy | patterns', 'street'}
        assert 'street: A street.' in card.text
        assert 'Synthetic images of "noisy | patterns": Colored squares under noise. A green frame' in card.text


class TestWrongUse:
    @pytest.mark.parametrize('repo_id', ['name', 'a/b/c', 'a b/c', 'org/..', ''])
    def test_names_of_repositories(self, trained, tmp_path, repo_id):
        with pytest.raises(ValueError, match='repository'):
            build_folder(trained, tmp_path / 'out', repo_id)

    def test_no_model(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no such folder'):
            build_folder(tmp_path / 'nowhere', tmp_path / 'out', 'a/b')
        with pytest.raises(FileNotFoundError, match=r'no model here .*config\.json'):
            build_folder(tmp_path, tmp_path / 'out', 'a/b')

    def test_results_that_are_none(self, trained, tmp_path):
        with pytest.raises(FileNotFoundError, match='timm-dpa eval'):
            build_folder(trained, tmp_path / 'out', 'a/b', results=[tmp_path])
        (tmp_path / 'evaluation.json').write_text('{"metrics": {}}')
        with pytest.raises(ValueError, match='make it again with timm-dpa eval'):
            build_folder(trained, tmp_path / 'out', 'a/b', results=[tmp_path])

    def test_nothing_is_overwritten_and_nothing_stays_after_an_error(self, trained, tmp_path):
        out = tmp_path / 'out'
        out.mkdir()
        (out / 'mine.txt').write_text('mine')
        with pytest.raises(FileExistsError, match='new or empty'):
            build_folder(trained, out, 'a/b')
        with pytest.raises(FileNotFoundError):
            build_folder(trained, tmp_path / 'other', 'a/b', pictures=tmp_path / 'missing')
        assert [path.name for path in tmp_path.iterdir()] == ['out']
        assert [path.name for path in out.iterdir()] == ['mine.txt']
