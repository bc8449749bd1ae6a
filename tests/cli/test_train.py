"""The verbs of training and evaluation as a user types them."""

import json
import re

import pytest

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa.cli.main import main


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_vehicles(tmp_path_factory.mktemp('data') / 'vehicles', identities=18, images=6)


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    recipe = folder / 'mine.yaml'
    recipe.write_text(quick().as_yaml())
    out = folder / 'first'
    arguments = ['--recipe', str(recipe), '--data', str(data), '--out', str(out), '--init', 'none']
    assert main(['train', *arguments, 'schedule.epochs=2']) == 0
    return out


def test_train_says_where_things_are(run, data, capsys):
    arguments = ['--recipe', str(run / 'recipe.yaml'), '--data', str(data), '--out', str(run)]
    assert main(['train', *arguments]) == 0
    out = capsys.readouterr().out
    assert 'was finished before: 2 epochs' in out
    assert f'model: {run / "model"}' in out


def test_eval_prints_and_writes_the_row(run, data, capsys):
    assert main(['eval', '--model', str(run), '--data', str(data), '--precision', 'fp32']) == 0
    out = capsys.readouterr().out
    (folder,) = (run / 'eval').iterdir()
    written = json.loads((folder / 'evaluation.json').read_text())
    best = json.loads((run / 'evaluation.json').read_text())
    assert written['metrics']['mAP'] == pytest.approx(best['metrics']['mAP'], abs=1e-6)
    assert re.search(rf'^\| first +\| +{100 * written["metrics"]["mAP"]:.2f} \|', out, re.MULTILINE)
    assert str(folder / 'evaluation.md') in out


def test_eval_options(run, data, tmp_path, capsys):
    options = ['--rerank', '--flip', '--protocol', 'vru', '--draws', '3', '--out', str(tmp_path)]
    assert main(['eval', '--model', str(run), '--data', str(data), *options]) == 0
    settings = json.loads((tmp_path / 'evaluation.json').read_text())['settings']
    assert (settings['rerank'], settings['flip'], settings['protocol'], settings['draws']) == (True, True, 'vru', 3)
    assert 'mean of 3 draws, re-ranked' in capsys.readouterr().out


def test_a_run_is_a_model_for_the_other_verbs(run, data, tmp_path, capsys):
    vectors = tmp_path / 'vectors.safetensors'
    assert main(['embed', str(data / 'image_test'), '--out', str(vectors), '--model', str(run)]) == 0
    query = str(next((data / 'image_query').iterdir()))
    assert main(['search', '--query', query, '--gallery', str(vectors), '--top', '2']) == 0
    assert main(['embed', str(data), '--out', str(vectors), '--model', str(data)]) == 2
    assert 'no model in this folder' in capsys.readouterr().err


def test_recipes(capsys):
    assert main(['recipes']) == 0
    assert 'paper/veri_uav' in capsys.readouterr().out.split()
    assert main(['recipes', 'paper/vru']) == 0
    assert re.search(r'decay_epochs:\n +- 30', capsys.readouterr().out)


def test_data_check(data, tmp_path, capsys):
    assert main(['data', 'check', str(data), '--json', str(tmp_path / 'report.json')]) == 0
    assert 'ready for training' in capsys.readouterr().out
    assert json.loads((tmp_path / 'report.json').read_text())
    broken = write_vehicles(tmp_path / 'broken')
    next((broken / 'image_train').iterdir()).write_bytes(b'x')
    assert main(['data', 'check', str(broken)]) == 2
    assert main(['data', 'check', str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere' in capsys.readouterr().err


def test_figures(run, data, tmp_path, capsys):
    common = ['--out', str(tmp_path / 'figure.png')]
    images = ['--images', str(next((data / 'image_test').iterdir()))]
    for arguments in (
        ['cmc', str(run), str(run), '--names', 'a', 'b'],
        ['ranks', str(run), '--data', str(data), '--queries', '2', '--top', '3'],
        ['cam', str(run), str(run), *images],
    ):
        (tmp_path / 'figure.png').unlink(missing_ok=True)
        assert main(['plot', *arguments, *common]) == 0
        assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')
        assert f'figure: {tmp_path / "figure.png"}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', '--recipe', 'papers/vru', '--data', 'D', '--out', 'O'], 'paper/vru'),
        (['train', '--data', 'nowhere', '--out', 'O'], 'nowhere'),
        (['train', '--data', 'D', '--out', 'O', 'optim.lr'], 'key=value'),
        (['eval', '--model', 'dpa_resnet18', '--data', 'nowhere'], 'nowhere'),
        (['ablate', 'table3', '--data', 'nowhere', '--out', 'O'], 'nowhere'),
        (['ablate', 'table3', '--data', 'D', '--out', 'O', 'optim.lr=1', 'optim.lrr=1'], 'optim.lrr'),
        (['ablate', 'table3', 'optim.lrr=1', '--data', 'D', '--out', 'O', 'optim.lr=1'], 'optim.lrr'),
        (['plot', 'ranks', 'dpa_resnet18', '--data', 'nowhere', '--out', 'x.png'], 'nowhere'),
        (['plot', 'cam', 'dpa_resnet18', '--images', 'nowhere', '--out', 'x.png'], 'nowhere'),
        (['plot', 'cmc', 'a', 'b', '--names', 'c', '--out', 'x.png'], '1 names for 2 runs'),
        (['plot', 'cmc', 'nowhere', '--out', 'x.png'], 'nowhere'),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert '\n' not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('arguments', [['models', '--foo=1'], ['data', 'draw', 'D', 'a=1'], ['train', '--foo=1']])
def test_what_is_no_setting_is_not_taken_for_one(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert 'timm-dpa' in capsys.readouterr().err


class TestWhereResultsGo:
    """No evaluation silently replaces another one."""

    def test_without_out_each_model_and_choice_of_options_has_a_folder(self, data, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        size = ['--image-size', '32', '--data', str(data)]
        for model in ('reid_resnet18', 'se_resnet18'):
            for options in ([], ['--flip'], ['--protocol', 'vru', '--rerank']):
                assert main(['eval', '--model', model, *size, *options]) == 0
        found = [path.parent.relative_to(tmp_path).parts for path in tmp_path.rglob('evaluation.json')]
        (name,) = {parts[2] for parts in found if '_' not in parts[2].replace(data.name, '')}
        expected = [name, f'{name}_flip', f'{name}_vru_rerank']
        assert sorted(found) == [('eval', m, e) for m in ('reid_resnet18', 'se_resnet18') for e in sorted(expected)]

    def test_results_of_something_else_are_kept(self, data, tmp_path, capsys):
        out = tmp_path / 'results'
        size = ['--image-size', '32', '--data', str(data), '--out', str(out)]
        assert main(['eval', '--model', 'reid_resnet18', *size]) == 0
        before = (out / 'evaluation.json').read_bytes()
        for other, what in (
            (['--model', 'se_resnet18'], 'model'),
            (['--model', 'reid_resnet18', '--protocol', 'vru'], 'protocol'),
        ):
            capsys.readouterr()
            assert main(['eval', *other, *size]) == 2
            assert f'another {what}' in (error := capsys.readouterr().err)
            assert '--overwrite' in error
            assert (out / 'evaluation.json').read_bytes() == before
        assert main(['eval', '--model', 'reid_resnet18', *size]) == 0
        assert main(['eval', '--model', 'se_resnet18', *size, '--overwrite']) == 0
        assert json.loads((out / 'evaluation.json').read_text())['name'] == 'se_resnet18'

    def test_a_file_of_that_name_is_no_evaluation(self, data, tmp_path, capsys):
        (tmp_path / 'evaluation.json').write_text('{"mine": 1}')
        words = ['eval', '--model', 'reid_resnet18', '--image-size', '32', '--data', str(data), '--out', str(tmp_path)]
        assert main(words) == 2
        assert 'is no evaluation' in capsys.readouterr().err
        assert (tmp_path / 'evaluation.json').read_text() == '{"mine": 1}'
