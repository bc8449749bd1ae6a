"""What all programs of examples/ have."""

import re
import shlex

import pytest

from tests.support.examples import FOLDER, PROGRAMS, load, refused


@pytest.mark.parametrize('name', PROGRAMS)
class TestAll:
    def test_the_command_line_is_not_imported(self, name):
        """Examples show the library; the command line has no interface for programs."""
        assert 'timm_dpa.cli' not in (FOLDER / f'{name}.py').read_text()

    def test_help_says_what_is_needed_and_how_to_run_it(self, name, call, capsys):
        with pytest.raises(SystemExit) as ended:
            call(name, '--help')
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert 'pip install' in printed
        assert f'python examples/{name}.py ' in printed

    def test_examples_of_the_docstring_are_understood(self, name, call, tmp_path, monkeypatch):
        if name == 'rendered_traffic':
            pytest.skip('it reads no files that could be missing; its own test runs it')
        monkeypatch.chdir(tmp_path)
        module = load(name)
        examples = re.findall(rf'^    python examples/{name}\.py (.*)$', module.__doc__, flags=re.M)
        assert len(examples) == 2
        for example in examples:  # wrong use would be a SystemExit, here only files are missing
            refused(call(name, *shlex.split(example), module=module), name, '')
