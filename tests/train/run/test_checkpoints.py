"""Checkpoints: whole or not at all, whatever happens while they are written."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from timm_dpa.files import remove_stale
from timm_dpa.train.run.checkpoints import load_checkpoint, load_latest, save_checkpoint


def state(number: int) -> dict:
    return {
        'weights': torch.full((1000,), float(number)),
        'step': number,
        'row': {'mAP': 0.5, 'name': 'ä'},
        'none': None,
    }


def test_round_trip_keeps_the_one_before(tmp_path):
    for number in (1, 2, 3):
        save_checkpoint(tmp_path / 'last.pt', state(number))
    assert load_checkpoint(tmp_path / 'last.pt')['step'] == 3
    assert load_checkpoint(tmp_path / 'previous.pt')['step'] == 2
    assert torch.equal(load_latest(tmp_path)['weights'], state(3)['weights'])
    assert sorted(os.listdir(tmp_path)) == ['last.pt', 'previous.pt']
    # a file of torch all the same
    assert torch.load(tmp_path / 'last.pt', weights_only=True)['row'] == {'mAP': 0.5, 'name': 'ä'}


def test_nothing_to_go_on_from(tmp_path):
    assert load_latest(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=r'last\.pt'):
        load_checkpoint(tmp_path / 'last.pt')


@pytest.mark.parametrize('damage', ['cut', 'flip', 'empty', 'text'])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_taken(tmp_path, damage):
    for number in (1, 2):
        save_checkpoint(tmp_path / 'last.pt', state(number))
    content = bytearray((tmp_path / 'last.pt').read_bytes())
    if damage == 'flip':
        content[len(content) // 2] ^= 1  # in the middle of the weights, where a ZIP reader would not look
    new = {'cut': content[:-100], 'flip': content, 'empty': b'', 'text': b'hello' * 50}[damage]
    (tmp_path / 'last.pt').write_bytes(new)
    with pytest.raises(ValueError, match='damaged'):
        load_checkpoint(tmp_path / 'last.pt')
    found = load_latest(tmp_path)
    assert found['step'] == 1
    assert 'last.pt: damaged' in found['damaged'][0]
    (tmp_path / 'previous.pt').write_bytes(b'')
    with pytest.raises(ValueError, match='no good checkpoint is left'):
        load_latest(tmp_path)


def test_code_is_not_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)

    save_checkpoint(tmp_path / 'last.pt', {'evil': Evil()})
    with pytest.raises(ValueError, match='cannot be read'):
        load_checkpoint(tmp_path / 'last.pt')
    assert not (tmp_path / 'ran').exists()


def test_a_full_disk_leaves_what_was_there(tmp_path):
    save_checkpoint(tmp_path / 'last.pt', state(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # the kernel refuses to write more into one file
    try:
        with pytest.raises(OSError, match=r'last\.pt|large'):
            save_checkpoint(tmp_path / 'last.pt', state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert load_latest(tmp_path)['step'] == 1
    assert os.listdir(tmp_path) == ['last.pt']


def test_killed_while_writing(tmp_path):
    script = (
        'import sys, torch\nfrom pathlib import Path\nfrom timm_dpa.train.run.checkpoints import save_checkpoint\n'
        'for step in range(10**6):\n'
        '    state = {"step": step, "weights": torch.full((300_000,), float(step))}\n'
        '    save_checkpoint(Path(sys.argv[1]) / "last.pt", state)\n'
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)])
        deadline = time.time() + 60
        while not (tmp_path / 'previous.pt').exists() and time.time() < deadline:
            time.sleep(0.02)
        time.sleep(0.07)
        process.kill()
        process.wait()
        found = load_latest(tmp_path)
        assert torch.equal(found['weights'], torch.full((300_000,), float(found['step'])))
    (tmp_path / '.model.tmp1').mkdir()
    (tmp_path / '.model.tmp1/config.json').write_text('{}')
    remove_stale(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['last.pt', 'previous.pt']
