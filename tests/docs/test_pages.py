"""README and the pages of docs/: their commands exist, their Python runs, and their figures are those of the models."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.models import tiny
from tests.support.pages import PAGES, PROJECT, blocks, commands, marks
from timm_dpa.cli.main import COMMANDS, make_parser
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.data.toy_vehicles import draw_vehicle
from timm_dpa.train.recipes.recipe import ModelRecipe, list_recipes
from timm_dpa.train.run.networks import save_model_folder

README = (PROJECT / 'README.md').read_text(encoding='utf-8')
every_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
WITH_PYTHON = [page for page in PAGES if any(block.reason is None for block in blocks(page, 'python'))]
WITH_SHELL = [PROJECT / 'README.md', PROJECT / 'docs' / 'quickstart.md']


@every_page
def test_marks_stand_before_blocks(page):
    found = [block for language in ('sh', 'python') for block in blocks(page, language) if block.reason]
    assert marks(page) == len(found)


@every_page
def test_commands_of_the_page_are_those_of_the_program(page):
    """Every `timm-dpa` command parses, whether or not a test runs it; `make` targets and scripts exist."""
    parser, make = make_parser(), (PROJECT / 'Makefile').read_text(encoding='utf-8')
    for block in blocks(page, 'sh'):
        for words in commands(block.code):
            if 'timm_dpa.cli' in words:
                words = ['timm-dpa', *words[words.index('timm_dpa.cli') + 1 :]]
            if words[0] == 'timm-dpa':
                try:
                    args, rest = parser.parse_known_args(words[1:])
                except SystemExit:
                    pytest.fail(f'{page.name}: timm-dpa {shlex.join(words[1:])}')
                assert not [word for word in rest if word.startswith('-')], words
                if recipe := getattr(args, 'recipe', None):
                    assert recipe in list_recipes()
            elif words[0] == 'make':
                assert re.search(rf'^{words[1]}:', make, flags=re.M), words


def test_scripts_that_pages_name_exist():
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        for name in re.findall(
            r'\b(?:benchmarks|examples|tests|timm_dpa|train|synth|hub)/[\w/]+\.(?:py|md|json|yaml)\b', text
        ):
            assert (PROJECT / name).exists(), f'{page.name}: {name}'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What the Python blocks find: three images, and the run of the quick start."""
    folder = tmp_path_factory.mktemp('user')
    for index, name in enumerate('abc'):
        draw_vehicle(index, 0).save(folder / f'{name}.jpg')
    (folder / 'runs' / 'dpa').mkdir(parents=True)
    recipe = ModelRecipe(name='dpa_resnet18', args={'layers': [1, 1, 1, 1], 'channels': [16, 32, 64, 128]})
    save_model_folder(recipe, (64, 64), tiny('dpa').state_dict(), folder / 'runs' / 'dpa' / 'model')
    return folder


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=folder,
        env={**os.environ, 'HF_HUB_OFFLINE': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize('page', WITH_PYTHON, ids=lambda page: page.stem)
def test_python_of_the_page_runs(folder, page):
    run_python('\n'.join(block.code for block in blocks(page, 'python') if not block.reason), folder)


def test_first_example_of_the_readme_gives_what_its_comments_say(folder):
    printed = run_python(
        blocks(PROJECT / 'README.md', 'python')[0].code
        + '\nimport torch'
        + '\nprint(model.eval()(torch.rand(1, 3, 256, 256)).shape, classifier.eval()(torch.rand(1, 3, 256, 256)).shape)'
        + '\nprint(vectors.shape, vectors.dtype, similarity.diagonal().round(4))',
        folder,
    )
    assert printed.endswith('torch.Size([1, 2048]) torch.Size([1, 453])\n(3, 2048) float32 [1. 1. 1.]\n')


def test_training_loop_of_your_own_runs(folder):
    (example,) = (b.code for b in blocks(PROJECT / 'docs' / 'training.md', 'python') if 'TripletLoss' in b.code)
    printed = run_python(f'{example}\nprint(bool(embeddings.grad.any()))', folder)
    assert re.fullmatch(r'mAP 0\.\d+, Rank-1 [01]\.\d+, mINP 0\.\d+, 8 queries\nTrue\n', printed)


@pytest.mark.slow
@pytest.mark.parametrize('page', WITH_SHELL, ids=lambda page: page.stem)
def test_shell_commands_of_the_page_run(tmp_path, page):
    """In a folder with toy crops. The trainings are those of the page, but shorter."""
    drawn = draw_data_set(tmp_path / 'drawn_crops', 12, 8, size=48)
    for path in sorted(drawn.rglob('*.jpg')):
        target = tmp_path / 'crops' / path.name.partition('_')[0]
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.name)
    programs = tmp_path / 'bin'
    programs.mkdir()
    shorter = (
        'schedule.epochs=1 schedule.warmup_epochs=0 schedule.hold_epochs=0 run.whiten_images=32 batch.size=16 '
        'data.workers=0 data.image_size=64'
    )
    (programs / 'timm-dpa').write_text(
        f'#!/bin/sh\ncase "$1" in train) set -- "$@" {shorter};; esac\n'
        f'exec {shlex.quote(sys.executable)} -m timm_dpa.cli "$@"\n',
        encoding='utf-8',
    )
    (programs / 'timm-dpa').chmod(0o755)
    script = '\n'.join(block.code for block in blocks(page, 'sh') if not block.reason)
    assert 'timm-dpa train' in script
    done = subprocess.run(
        ['bash', '-euxo', 'pipefail', '-c', script],
        cwd=tmp_path,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', 'PATH': f'{programs}{os.pathsep}{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outputs = re.findall(r'--(?:out|figure) (\S+)', script)
    assert outputs
    for name in outputs:
        assert (tmp_path / name).exists(), name


def test_readme_stays_one_page():
    assert 110 <= len(README.splitlines()) <= 140


def test_readme_names_every_command():
    table = README[README.index('## Commands') : README.index('## Train on your own data')]
    listed = [name for row in re.findall(r'^\| (`.+?) \|', table, flags=re.M) for name in re.findall(r'`(\S+?)`', row)]
    assert sorted(listed) == sorted(command.name for command in COMMANDS)


def test_readme_has_the_released_weights_and_their_metrics():
    section = README[README.index('## Models') : README.index('## Commands')]
    rows = re.findall(r'^\| `(\S+)`.* \| ([\d.]+) \|$', section, flags=re.M)
    entries = json.loads((PROJECT / 'timm_dpa' / 'weights' / 'manifest.json').read_text(encoding='utf-8'))['weights']
    manifest = {f'{entry["architecture"]}.{entry["tag"]}': entry for entry in entries}
    assert [name for name, _ in rows] == list(manifest)
    for name, street in rows:
        scores = [m['mAP'] for m in manifest[name]['metrics'] if m['data'] == 'kit_munichstreet02']
        assert abs(float(street) - scores[0]) < 0.051, name
    results = re.findall(r'^\| (\w+) \| .* \| ([\d.]+) \| ([\d.]+) \|$', README, flags=re.M)
    sets = {
        'street': 'kit_munichstreet02',
        'crossroad': 'kit_munichcrossroad01',
        'hovering': 'minsk_pairs',
        'tracks': 'timm-dpa rendered vehicles',
    }
    assert [name for name, *_ in results] == list(sets)
    measured = {m['data']: m for m in manifest['dpa_resnet50.rendered_kit']['metrics']}
    for name, mean_ap, rank1 in results:
        assert abs(float(mean_ap) - measured[sets[name]]['mAP']) < 0.051
        assert abs(float(rank1) - measured[sets[name]]['Rank-1']) < 0.051


def test_workflows_and_configurations_are_yaml():
    files = [*(PROJECT / '.github').rglob('*.y*ml'), PROJECT / '.pre-commit-config.yaml', PROJECT / 'CITATION.cff']
    assert len(files) >= 4
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding='utf-8')), dict), path
    for path in (PROJECT / '.github' / 'workflows').iterdir():
        workflow = yaml.safe_load(path.read_text(encoding='utf-8'))
        assert True in workflow, f'{path}: no `on`, which YAML reads as true'
        for job in workflow['jobs'].values():
            assert {'runs-on', 'steps'} <= set(job)
            for target in re.findall(r'\bmake ([\w-]+)', str(job['steps'])):
                assert f'\n{target}:' in (PROJECT / 'Makefile').read_text(encoding='utf-8'), target
