"""The paper's tables: their numbers, and a table run, killed and finished on small images."""

import csv
import json
import re
import subprocess
import sys
import time

import pytest

from tests.support.runs import quick
from tests.support.vehicles import write_vehicles
from timm_dpa.cli.main import main
from timm_dpa.train.evaluation.ablation import _recipe_of, ablate
from timm_dpa.train.evaluation.tables import TABLES


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_vehicles(tmp_path_factory.mktemp('data') / 'vehicles', identities=18, images=6)


def test_rows_and_numbers_of_the_paper():
    names = {table: [row.name for row in rows] for table, (_, rows) in TABLES.items()}
    assert [len(names[table]) for table in ('table3', 'table4', 'table5', 'table6')] == [4, 6, 7, 4]
    for _, rows in TABLES.values():
        best = max(rows, key=lambda row: row.paper[0])
        assert best.paper == (81.74, 96.59, 98.48, 51.56)
        assert (best.attention, best.loss or 'triplet', best.stages or (3,)) == ('dpa', 'triplet', (3,))
        for row in rows:
            if row.attention == 'reid':
                assert row.paper == (79.25, 95.96, 98.12, 49.29)


def test_a_row_changes_what_its_table_varies_and_nothing_else():
    base = quick('loss.metric_args={margin: 0.3}', 'run.seed=4')
    for table, (_, rows) in TABLES.items():
        for row in rows:
            ours, theirs = _recipe_of(row, base, 50, 7).as_dict(), base.as_dict()
            assert ours['model']['name'] == f'{row.attention}_resnet50'
            assert ours['run'] == {**theirs['run'], 'seed': 7, 'evaluate_every': 0}
            if table == 'table5':
                assert ours['model']['args'].pop('attn_stages', [3]) == list(row.stages or (3,))
            if table == 'table6' and row.loss != 'triplet':
                assert (ours['loss'].pop('metric'), ours['loss'].pop('metric_args')) == (row.loss, {})
                theirs['loss'].pop('metric'), theirs['loss'].pop('metric_args')
            for section in ('data', 'augment', 'batch', 'loss', 'optim', 'schedule'):
                assert ours[section] == theirs[section]
            assert ours['model']['args'] == base.model.args


def test_a_table_is_run_killed_and_finished(data, tmp_path, capsys):
    out, recipe = tmp_path / 'table', tmp_path / 'quick.yaml'
    recipe.write_text(quick('schedule.epochs=1', 'model.args.attn_args={}').as_yaml())
    verb = ['ablate', 'table6', '--data', str(data), '--out', str(out), '--recipe', str(recipe), '--seeds', '2']
    command = [sys.executable, '-m', 'timm_dpa.cli', *verb]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (out / 'dpa_multi_similarity' / 'seed0' / 'checkpoints' / 'last.pt').exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    first = out / 'dpa_circle' / 'seed0' / 'checkpoints' / 'last.pt'
    before = first.stat().st_mtime_ns
    assert main(verb) == 0
    printed = capsys.readouterr().out
    assert first.stat().st_mtime_ns == before  # what was finished is not done again

    rows = list(csv.DictReader((out / 'table6.csv').open()))
    assert [row['method'] for row in rows] == ['DpA+Circle', 'DpA+MS', 'DpA+SupCon', 'DpA+HMT']
    for row, slug in zip(rows, ('dpa_circle', 'dpa_multi_similarity', 'dpa_supcon', 'dpa'), strict=True):
        runs = [json.loads((out / slug / f'seed{k}' / 'evaluation.json').read_text())['metrics'] for k in range(2)]
        assert float(row['mAP']) == pytest.approx(50 * (runs[0]['mAP'] + runs[1]['mAP']), rel=1e-5)
        deviation = 100 * abs(runs[0]['mAP'] - runs[1]['mAP']) / 2**0.5
        assert float(row['mAP_deviation']) == pytest.approx(deviation, rel=1e-4, abs=1e-4)
        assert float(row['train_minutes']) > 0
    text = (out / 'table6.md').read_text()
    assert 'Measured on `vehicles` with ResNet-18, after the last of 1 epochs' in text
    line = next(line for line in text.splitlines() if line.startswith('| DpA+HMT'))
    assert [cell.strip() for cell in line.split('|')[-5:-1]] == ['81.74', '96.59', '98.48', '51.56']
    assert re.search(rf'\| +{float(rows[3]["mAP"]):.2f} ± ', line)
    assert (out / 'table6.png').read_bytes().startswith(b'\x89PNG')
    for path in ('table6.md', 'table6.csv', 'table6.png'):
        assert str(out / path) in printed


def test_all_tables_train_a_run_that_they_share_once(data, tmp_path, monkeypatch):
    """16 of the 21 rows of the four tables are different networks or losses."""
    from timm_dpa.train.evaluation import ablation

    trained = []
    real = ablation.train

    def train(recipe, root, folder, progress):
        trained.append(folder.relative_to(tmp_path).as_posix())
        return real(quick('schedule.epochs=1'), root, tmp_path / 'the_only_one', progress)

    monkeypatch.setattr(ablation, 'train', train)
    for slug in {ablation._slug(row, quick()) for _, rows in TABLES.values() for row in rows}:
        (tmp_path / slug).mkdir()
        (tmp_path / slug / 'seed0').symlink_to(tmp_path / 'the_only_one')
    paths = ablate('all', quick(), data, tmp_path)
    assert len(trained) == len(set(trained)) == 16
    assert {'dpa/seed0', 'reid/seed0', 'dpa_stages_2_3/seed0', 'dpa_circle/seed0'} <= set(trained)
    assert [path.name for path in paths if path.suffix == '.md'] == ['table3.md', 'table4.md', 'table5.md', 'table6.md']
    for table, (_, rows) in TABLES.items():
        assert len(list(csv.DictReader((tmp_path / f'{table}.csv').open()))) == len(rows)


def test_a_run_that_diverges_is_marked_and_the_others_go_on(data, tmp_path, monkeypatch):
    from timm_dpa.train.evaluation import ablation

    real = ablation.train

    def train(recipe, *args):  # a learning rate that is too much for one of the losses
        return real(recipe.override(['optim.lr=1e30', 'optim.name=sgd'] * (recipe.loss.metric == 'circle')), *args)

    monkeypatch.setattr(ablation, 'train', train)
    ablate('table6', quick('schedule.epochs=1'), data, tmp_path)
    rows = list(csv.DictReader((tmp_path / 'table6.csv').open()))
    assert [(row['runs'], row['problem']) for row in rows] == [('0', 'diverged'), ('1', ''), ('1', ''), ('1', '')]
    text = (tmp_path / 'table6.md').read_text()
    assert re.search(r'\| DpA\+Circle +\| +0 \| +diverged \|', text)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'table': 'table2'}, 'table3, table4, table5, table6'),
        ({'seeds': 0}, 'seeds'),
        ({'recipe': quick('model.name=resnet18')}, 'dpa_resnet18'),
    ],
)
def test_wrong_use(data, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        ablate(**{'table': 'table3', 'recipe': quick(), 'root': data, 'out': tmp_path, **arguments})
