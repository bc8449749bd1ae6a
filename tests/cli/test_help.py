"""Help, version and usage errors: what they say, and that they do not wait for torch."""

import json
import shlex
import subprocess
import sys

import pytest

from timm_dpa.cli.main import COMMANDS, main, make_parser

NAMES = [command.name for command in COMMANDS]
#: what `timm-dpa` does, and which modules of a list it has imported in the end
CODE = """
import atexit, json, sys
sys.argv[0] = 'timm-dpa'
atexit.register(lambda: print(json.dumps([name for name in ('torch', 'numpy', 'timm') if name in sys.modules])))
from timm_dpa.cli.main import main
sys.exit(main())
"""


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize('name', NAMES)
def test_examples_of_the_help_parse(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, '--help'])
    assert ended.value.code == 0
    examples = capsys.readouterr().out.partition('example:\n')[2].strip().splitlines()
    for example in examples:
        words = shlex.split(example, comments=True)
        if words[0] == 'torchrun':
            words = words[words.index('timm_dpa.cli') :]
        assert make_parser().parse_args(words[1:]).command.run is not None
    assert any(f'timm-dpa {name} ' in example for example in examples)


def test_all_commands_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--help'])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f'\n    {name} ' in printed for name in NAMES)


@pytest.mark.parametrize('words', [[], ['fly'], ['embed'], ['embed', 'a.jpg'], ['search', '--top', 'x']])
def test_wrong_use(words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    'words', [['--help'], ['--version'], ['fly'], ['embed'], *([name, '--help'] for name in NAMES)]
)
def test_neither_torch_nor_numpy_is_imported(words):
    done = python(CODE, *words)
    assert done.returncode == (2 if words[0] in ('fly', 'embed') and len(words) == 1 else 0), done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_python_m_needs_no_torch_for_its_help_either():
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-m', 'timm_dpa.cli', '--help'], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith('usage: timm-dpa')
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert 'timm_dpa.cli.main' in imported
    assert not imported & {'torch', 'numpy', 'timm'}


def test_models_are_registered_everywhere_else():
    """`import timm_dpa` alone registers them; in the process of the command line, using anything of it does."""
    assert python('import timm_dpa, timm; assert timm.is_model("dpa_resnet50")').returncode == 0
    done = python(
        'import sys; sys.argv[0] = "timm-dpa"; import timm_dpa\n'
        'assert "torch" not in sys.modules\n'
        'assert timm_dpa.ReIDResNet.__name__ == "ReIDResNet"\n'
        'import timm; assert timm.is_model("dpa_resnet50")'
    )
    assert done.returncode == 0, done.stderr


def test_debug_shows_the_traceback(tmp_path, capsys):
    for words in (['--debug', 'models', 'nothing*'], ['models', 'nothing*', '--debug']):
        assert main(words) == 2
        *trace, line = capsys.readouterr().err.splitlines()
        assert trace[0] == 'Traceback (most recent call last):'
        assert line.startswith('timm-dpa models: ')
    assert main(['models', 'nothing*']) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_error_of_a_library_is_one_line(monkeypatch, capsys):
    """Whatever it is; a real one is an exception that no parser of files expects."""

    class StrangeError(Exception):
        pass

    def fail(*_, **__):
        raise StrangeError('first\nsecond ' + 1000 * 'x')

    monkeypatch.setattr('timm_dpa.catalog.zoo_table', fail)
    assert main(['models']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('timm-dpa models: unexpected StrangeError: first second xxx')
    assert line.endswith('; --debug shows where')
    assert len(line) < 600
