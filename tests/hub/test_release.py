"""A release of the package: from a run to the tag that an installation loads, in processes of their own."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from tests.support.hub_client import TOKEN, HubClient, embed
from tests.support.hub_server import LoopbackHub
from tests.support.hub_storage import Account
from tests.support.site import MODEL_FILES, copy_package, models_of
from timm_dpa import FeatureExtractor, load_weights
from timm_dpa.cli.main import main
from timm_dpa.hub.golden import check_golden
from timm_dpa.hub.half import store_half
from timm_dpa.hub.release import refresh_release, release_model
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.weights.manifest import file_sha256, read_manifest
from timm_dpa.weights.thresholds import as_mapping

PROJECT = Path(__file__).parents[2]
NAME = 'reid_resnet18.squares'
#: nobody answers there
UNREACHABLE = {'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HUB_DISABLE_XET': '1'}


def listing(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def run_python(code: str, site: Path, folder: Path, *, search: bool = False, **environment: str) -> tuple[str, str]:
    """What a process that has `site` in front prints, and its errors."""
    path = os.pathsep.join([str(site), *([str(PROJECT)] if search else [])])
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=folder,
        env={**os.environ, **UNREACHABLE, 'HF_HOME': str(folder), 'PYTHONPATH': path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope='module')
def evaluated(trained, standard, tmp_path_factory) -> Path:
    """Results of `timm-dpa eval` on the images of another data set."""
    folder = tmp_path_factory.mktemp('evaluated')
    (folder / 'street').symlink_to(trained.parent / 'patterns' / 'image_test')
    out = folder / 'eval'
    options = ['--test-fraction', '1', '--precision', 'fp32', '--out', str(out)]
    assert main(['eval', '--model', str(standard), '--data', str(folder / 'street'), *options]) == 0
    return out


@pytest.fixture(scope='module')
def site(standard, evaluated, tmp_path_factory) -> Path:
    """A copy of the package that has released the run."""
    site = copy_package(tmp_path_factory.mktemp('released'))
    release_model(
        standard,
        'squares',
        manifest=site / 'timm_dpa' / 'weights' / 'manifest.json',
        models=models_of(site),
        results=[evaluated],
        half=True,
    )
    return site


@pytest.fixture(scope='module')
def expected(site) -> str:
    """Outputs of the stored weights, loaded from their folder."""
    return embed(timm.create_model(f'local-dir:{models_of(site) / NAME}', pretrained=True))


class TestFolder:
    def test_holds_what_goes_to_the_hub_and_nothing_else_stays(self, site):
        assert [path.name for path in models_of(site).iterdir()] == [NAME]
        assert list(listing(models_of(site) / NAME)) == MODEL_FILES
        assert check_golden(models_of(site) / NAME) <= 1e-5

    def test_manifest_has_digest_metrics_and_command(self, site, standard, evaluated):
        (release,) = read_manifest(site / 'timm_dpa' / 'weights' / 'manifest.json').values()
        weights = (models_of(site) / NAME / 'model.safetensors').read_bytes()
        assert (release.name, release.repo, release.revision) == (NAME, NAME, None)
        assert (release.sha256, release.size) == (hashlib.sha256(weights).hexdigest(), len(weights))
        assert release.size < 0.51 * (standard / 'model' / 'model.safetensors').stat().st_size
        for row, folder in zip(release.metrics, (standard, evaluated), strict=True):
            written = json.loads((folder / 'evaluation.json').read_text())
            assert row['data'] == written['data']['name']
            assert row['mAP'] == pytest.approx(100 * written['metrics']['mAP'], abs=0.00501)
        assert release.command.startswith('timm-dpa train --recipe recipe.yaml --data ')
        assert release.cfg == {'input_size': [3, 32, 32], 'pool_size': [2, 2]}

    def test_card_loads_it_by_its_tag(self, site, tmp_path):
        card = ModelCard.load(models_of(site) / NAME / 'README.md')
        assert re.search(r'These weights come with\s+it', card.text)
        assert f"FeatureExtractor('{NAME}')" in card.text
        assert f"'hf-hub:ORG/{NAME}'" in card.text
        example = re.search(r'```python\n(.*?)```', card.text, flags=re.DOTALL).group(1)
        draw_vehicle(0, 0).save(tmp_path / 'crop.jpg')
        code = f'{example}\nprint(tuple(embedding.shape), round(float(embedding.norm()), 4))'
        assert run_python(code, site, tmp_path)[0].strip() == '(1, 512) 1.0'

    def test_nothing_is_overwritten_and_nothing_stays_after_an_error(self, site, standard, trained, tmp_path):
        manifest, models = site / 'timm_dpa' / 'weights' / 'manifest.json', models_of(site)
        before = listing(site)
        with pytest.raises(FileExistsError, match='is there already'):
            release_model(standard, 'squares', manifest=manifest, models=models)
        with pytest.raises(ValueError, match='options of its own'):
            release_model(trained, 'small', manifest=manifest, models=models)
        with pytest.raises(ValueError, match='wrong tag'):
            release_model(standard, 'Not-A-Tag', manifest=manifest, models=models)
        with pytest.raises(FileNotFoundError, match='no such manifest'):
            release_model(standard, 'other', manifest=tmp_path / 'none.json', models=models)
        assert listing(site) == before


class TestRefreshed:
    """Files around the weights, written again with thresholds of further evaluations."""

    @pytest.fixture
    def released(self, standard, tmp_path):
        (tmp_path / 'weights.json').write_text('{"weights": []}')
        options = {'manifest': tmp_path / 'weights.json', 'models': tmp_path / 'models', 'half': True}
        release_model(standard, 'squares', **options)
        return tmp_path / 'models' / NAME

    def measured(self, released, folder, **other):
        """An evaluation of many pairs."""
        sha256 = FeatureExtractor(released, device='cpu').describe()['network_sha256']
        rows = [{'false_match_rate': rate, 'cosine': rate + 0.5, 'miss_rate': 0.25} for rate in (0.01, 0.05)]
        content = json.loads((released.parents[1] / 'evaluation.json').read_text())
        found = {'same_pairs': 60, 'different_pairs': 1000, 'thresholds': rows}
        folder.mkdir()
        content = {**content, 'verification': found, 'model': {'network_sha256': sha256}, **other}
        (folder / 'evaluation.json').write_text(json.dumps(content))
        return folder

    def test_thresholds_go_to_card_configuration_manifest_and_model(self, released, standard, tmp_path):
        shutil.copy(standard / 'evaluation.json', tmp_path)
        before = listing(released)
        wanted = {0.01: 0.51, 0.05: 0.55}
        results = [self.measured(released, tmp_path / 'street')]
        release = refresh_release(released, results, manifest=tmp_path / 'weights.json')
        assert as_mapping(release.thresholds) == wanted
        assert read_manifest(tmp_path / 'weights.json') == {NAME: release}
        after = listing(released)
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed == {'README.md', 'config.json', 'release.json'}
        assert '| 5 % | 0.5500 | 25.0 % | noisy \\| patterns | 60 | 1,000 |' in after['README.md'].decode()
        assert FeatureExtractor(released).thresholds == wanted
        assert FeatureExtractor(released, image_size=64).thresholds is None
        assert FeatureExtractor(released, flip=True).thresholds is None
        model = timm.create_model(f'local-dir:{released}', pretrained=True)
        assert model.thresholds == wanted
        assert timm.create_model(f'local-dir:{released}', pretrained=False).thresholds is None
        load_weights(model, standard / 'model' / 'model.safetensors')
        assert model.thresholds is None
        assert main(['publish', str(released), '--refresh', '--package']) == 2
        refresh_release(released, manifest=tmp_path / 'weights.json')
        assert listing(released) == after

    def test_results_of_other_weights_and_too_few_pairs_are_refused(self, released, standard, evaluated, tmp_path):
        shutil.copy(standard / 'evaluation.json', tmp_path)
        before = listing(tmp_path / 'models')
        manifest = tmp_path / 'weights.json'
        with pytest.raises(ValueError, match='an evaluation of other weights'):  # float32 ones
            refresh_release(released, [evaluated], manifest=manifest)
        none = self.measured(released, tmp_path / 'few', verification=None)
        with pytest.raises(ValueError, match='no threshold in these results'):
            refresh_release(released, [none], manifest=manifest)
        with pytest.raises(FileNotFoundError, match='no finished model here'):
            refresh_release(standard, manifest=manifest)
        manifest.write_text('{"weights": []}')
        with pytest.raises(ValueError, match='no entry of this name'):
            refresh_release(released, manifest=manifest)
        assert listing(tmp_path / 'models') == before


class TestLoaded:
    CODE = f"""
import timm, timm_dpa
from tests.support.hub_client import embed
ours = timm.list_models(module='dpa_resnet')
print([name for name in timm.list_pretrained() if name.partition('.')[0] in ours])
model = timm.create_model('reid_resnet18', pretrained=True)
print(model.pretrained_cfg['tag'], model.num_classes, model.pretrained_cfg['input_size'])
print(embed(model) == embed(timm.create_model('{NAME}', pretrained=True)), embed(model))
"""

    def test_by_its_architecture_alone_without_a_connection(self, site, expected, tmp_path):
        """And by commands, which warn of random weights otherwise."""
        draw_vehicle(0, 0).save(tmp_path / 'crop.jpg')
        code = f'{self.CODE}\nfrom timm_dpa.cli.main import main\n'
        code += "main('embed crop.jpg --model reid_resnet18 --out v.safetensors'.split())"
        out, errors = run_python(code, site, tmp_path, search=True)
        assert out.startswith(f"['{NAME}']\nsquares 0 (3, 32, 32)\nTrue {expected}\n")
        assert (tmp_path / 'v.safetensors').is_file()
        assert 'random' not in errors

    def test_without_its_weights_one_line_says_where_they_are(self, site, trained, tmp_path):
        """In Python, and by the commands; weights of the user's own, or none, are no error."""
        other = tmp_path / 'other'
        shutil.copytree(site, other)
        shutil.rmtree(models_of(other))
        where = str(models_of(site) / NAME / 'model.safetensors')
        code = f"""
import timm, timm_dpa
from timm_dpa.cli.main import main
print([name for name in timm.list_pretrained() if 'squares' in name])
for create in (timm.create_model, timm_dpa.FeatureExtractor):
    for name in ('reid_resnet18', '{NAME}'):
        try: create(name, pretrained=True)
        except timm_dpa.WeightsError as error: print(error)
try: timm_dpa.FeatureExtractor('reid_resnet18')
except FileNotFoundError as error: print(error)
timm.create_model('reid_resnet18')
timm.create_model('reid_resnet18', pretrained=True, pretrained_cfg_overlay={{'file': {where!r}}})
for words in ('embed crop.jpg --out v.safetensors --model reid_resnet18', 'export {NAME} --out x.onnx',
              'train --data {trained.parent / 'patterns'} --out run --model {NAME}',
              'demo --out demo --model reid_resnet18'):
    print(main(words.split()))
"""
        draw_vehicle(0, 0).save(tmp_path / 'crop.jpg')
        out, errors = run_python(code, other, tmp_path)
        first, *messages = out.splitlines()
        assert first == '[]'
        assert messages[:5] == [messages[0]] * 5
        assert messages[0].startswith(f'{NAME}: its weights are not in this installation')
        for word in ('TIMM_DPA_HUB_ORG=<org>', f'hf-hub:<org>/{NAME}', '(pip install .)'):
            assert word in messages[0]
        assert messages[5:] == ['2'] * 4
        lines = [line for line in errors.splitlines() if line.startswith('timm-dpa')]
        assert lines == [f'timm-dpa {verb}: {messages[0]}' for verb in ('embed', 'export', 'train', 'demo')]
        assert 'Traceback' not in errors
        assert not (tmp_path / 'demo').exists()


def build(tree: Path, out: Path, kind: str = 'wheel', **environment: str) -> Path:
    """Unpack what a build front end gets from the source tree: a wheel or an sdist."""
    out.mkdir()
    code = f"from setuptools.build_meta import build_{kind}; build_{kind}('{out}')"
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tree,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'would be ignored' not in done.stderr
    (file,) = out.iterdir()
    shutil.unpack_archive(file, out, 'zip' if kind == 'wheel' else 'gztar')
    file.unlink()
    return out


@pytest.fixture(scope='module')
def tree(tmp_path_factory) -> Path:
    tree = tmp_path_factory.mktemp('source') / 'tree'
    for room in ('timm_dpa', 'train', 'synth', 'hub'):
        ignored = shutil.ignore_patterns('__pycache__', 'models')
        shutil.copytree(PROJECT / room, tree / room, ignore=ignored)
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
        shutil.copy(PROJECT / name, tree)
    return tree


@pytest.fixture(scope='module')
def others(tmp_path_factory) -> Path:
    """Weights of another architecture."""
    folder = tmp_path_factory.mktemp('others')
    save_file(timm.create_model('dpa_resnet18').state_dict(), folder / 'whole.safetensors')
    store_half(folder / 'whole.safetensors', folder / 'model.safetensors')
    return folder / 'model.safetensors'


@pytest.mark.skipif(int(version('setuptools').partition('.')[0]) < 77, reason='what pyproject.toml asks for')
class TestBuilt:
    """Wheels, one after the other from one tree, where an earlier build must not show in a later one."""

    def test_carry_all_models_and_an_upload_the_first_of_two_architectures(
        self, site, tree, others, expected, tmp_path
    ):
        assert not models_of(build(tree, tmp_path / 'without')).exists()

        manifest = json.loads((site / 'timm_dpa' / 'weights' / 'manifest.json').read_text())
        sha256, size = file_sha256(others), others.stat().st_size
        for tag in ('one', 'two'):
            entry = {'architecture': 'dpa_resnet18', 'tag': tag, 'repo': f'dpa.{tag}', 'sha256': sha256, 'size': size}
            manifest['weights'].append(entry)
            (tree / 'hub' / 'models' / f'dpa_resnet18.{tag}').mkdir(parents=True)
            shutil.copy(others, tree / 'hub' / 'models' / f'dpa_resnet18.{tag}')
        (tree / 'timm_dpa' / 'weights' / 'manifest.json').write_text(json.dumps(manifest))
        shutil.copytree(models_of(site) / NAME, tree / 'hub' / 'models' / NAME, symlinks=True)

        full = build(tree, tmp_path / 'full')
        carried = listing(tree / 'hub' / 'models')
        carried.pop(f'{NAME}/weights.safetensors')  # a link
        assert listing(models_of(full)) == carried
        out, _ = run_python(TestLoaded.CODE, full, tmp_path, search=True)
        assert out.endswith(f'True {expected}\n')

        slim = build(tree, tmp_path / 'slim', TIMM_DPA_WHEEL='slim')
        assert [path.name for path in models_of(slim).iterdir()] == ['dpa_resnet18.one']
        (source,) = build(tree, tmp_path / 'source', 'sdist', TIMM_DPA_WHEEL='slim').iterdir()
        assert [path.name for path in (source / 'hub' / 'models').iterdir()] == ['dpa_resnet18.one']
        assert listing(build(source, tmp_path / 'again')).keys() == listing(slim).keys()
        code = """
import timm, timm_dpa
print(timm.create_model('dpa_resnet18', pretrained=True).pretrained_cfg['tag'])
for name in ('dpa_resnet18.two', 'reid_resnet18'):
    try: timm.create_model(name, pretrained=True)
    except timm_dpa.WeightsError as error: print(error)
"""
        out, _ = run_python(code, slim, tmp_path)
        first, *messages = out.splitlines()
        assert first == 'one'
        for name, message in zip(('dpa_resnet18.two', NAME), messages, strict=True):
            assert message.startswith(f'{name}: its weights are not in this installation')
            assert message.endswith('(pip install .)')

    def test_any_other_word_is_refused(self, tree, tmp_path):
        code = 'from setuptools.build_meta import build_wheel; build_wheel("x")'
        done = subprocess.run(
            [sys.executable, '-c', code],
            cwd=tree,
            env={**os.environ, 'TIMM_DPA_WHEEL': 'thin'},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert 'TIMM_DPA_WHEEL=thin' in done.stderr


class TestHub:
    def test_goes_up_and_is_taken_from_there_where_the_package_lacks_it(self, site, expected, tmp_path):
        site = shutil.copytree(site, tmp_path / 'site')
        with LoopbackHub(accounts={TOKEN: Account('me', orgs=('org',))}) as hub:
            with HubClient(tmp_path / 'me', {**hub.environment, 'HF_TOKEN': TOKEN}, site) as client:
                status, out, errors = client.cli('publish', '--all', '--org', 'org')
                assert status == 0, errors
            repository = hub.repos[f'org/{NAME}']
            (release,) = read_manifest(site / 'timm_dpa' / 'weights' / 'manifest.json').values()
            assert (release.repo, release.revision) == (f'org/{NAME}', repository.history()[0].id)
            uploaded = repository.contents()
            del uploaded['.gitattributes']
            folder = listing(models_of(site) / NAME)
            for name in ('README.md', 'release.json'):
                text = folder.pop(name).decode()
                assert uploaded.pop(name).decode() == text.replace(f'ORG/{NAME}', f'org/{NAME}')
            assert uploaded == folder
            before = len(hub.requests)
            out, _ = run_python(TestLoaded.CODE, site, tmp_path, search=True, **hub.environment)
            assert out.endswith(f'True {expected}\n')
            assert len(hub.requests) == before
            shutil.rmtree(models_of(site))
            out, _ = run_python(TestLoaded.CODE, site, tmp_path, search=True, **hub.environment)
            assert out.endswith(f'True {expected}\n')
            assert f'GET org/{NAME} {release.revision} model.safetensors' in hub.requests


@pytest.fixture(scope='module')
def empty(tmp_path_factory) -> Path:
    """A copy of the package without a release."""
    return copy_package(tmp_path_factory.mktemp('empty'))


@pytest.fixture(scope='module')
def client(empty, tmp_path_factory):
    with HubClient(tmp_path_factory.mktemp('home'), UNREACHABLE, empty) as client:
        yield client


class TestCommand:
    def test_releases_as_the_function_does(self, client, empty, site, standard, evaluated):
        command = ['--package', '--tag', 'squares', '--half', '--results', str(evaluated)]
        status, out, errors = client.cli('publish', str(standard), *command)
        assert status == 0, errors
        assert f"timm.create_model('{NAME}', pretrained=True)" in out
        assert listing(models_of(empty)) == listing(models_of(site))
        assert (empty / 'timm_dpa' / 'weights' / 'manifest.json').read_text() == (
            site / 'timm_dpa' / 'weights' / 'manifest.json'
        ).read_text()

    @pytest.mark.parametrize(
        ('argv', 'message'),
        [
            (['RUN', '--package'], '--package takes a folder and --tag'),
            (['--package', '--tag', 'x'], '--package takes a folder and --tag'),
            (['RUN', '--package', '--tag', 'x', '--repo-id', 'org/x'], 'takes no --repo-id'),
            (['RUN', '--package', '--tag', 'x', '--dry-run', 'look'], '--dry-run'),
            (['--all', '--org', 'org', '--package'], 'neither a folder nor --repo-id, --package or --refresh'),
            (['--all', '--org', 'org', '--half'], 'their cards take no options'),
            (['nowhere', '--package', '--tag', 'x'], 'no such folder'),
            (['RUN', '--repo-id', 'org/x', '--zoo', 'zoo'], '--zoo goes with --all'),
            (['--all', '--org', 'org', '--zoo', 'zoo'], 'zoo/weights.json: no such manifest'),
        ],
    )
    def test_wrong_use_is_one_line(self, client, standard, argv, message):
        status, out, errors = client.cli('publish', *(str(standard) if word == 'RUN' else word for word in argv))
        assert (status, out) == (2, '')
        assert errors.count('\n') == 1
        assert message in errors
