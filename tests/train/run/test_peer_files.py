"""Which files a model's folder gets for other packages; tests/integrations/test_folders.py reads them with these."""

import json
import shutil

import pytest
import timm

from timm_dpa.train.run.networks import write_model_folder
from timm_dpa.train.run.peer_files import write_peer_files

NAMES = ['modules.json', 'reid_config.json', 'sentence_bert_config.json', 'weights.safetensors']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models') / 'model'
    write_model_folder(timm.create_model('reid_resnet18'), {}, (48, 64), folder)
    return folder


def change(folder, tmp_path, model_args=None, **cfg):
    other = tmp_path / 'other'
    shutil.copytree(folder, other, symlinks=True)
    config = json.loads((other / 'config.json').read_text())
    config['model_args'] = model_args or {}
    config['pretrained_cfg'].update(cfg)
    (other / 'config.json').write_text(json.dumps(config))
    return other


def read(folder):
    return json.loads((folder / 'reid_config.json').read_text())


def test_a_folder_has_all_and_one_copy_of_the_weights(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(['config.json', 'model.safetensors', *NAMES])
    assert (folder / 'weights.safetensors').samefile(folder / 'model.safetensors')
    assert read(folder)['architecture'] == 'timm:reid_resnet18'
    assert read(folder)['preprocessing']['input_size'] == [48, 64]


def test_what_no_name_stands_for_is_read_from_its_repository_only(folder, tmp_path):
    other = change(folder, tmp_path, {'attn_stages': [2]})
    write_peer_files(other, 'somebody/model')
    assert read(other)['architecture'] == 'timm:hf-hub:somebody/model'
    write_peer_files(other)
    assert [path.name for path in sorted(other.iterdir())] == [
        'config.json', 'model.safetensors', 'modules.json', 'sentence_bert_config.json',
    ]  # fmt: skip


@pytest.mark.parametrize('parts', [['whiten'], ['color_norm'], ['color_norm', 'whiten']])
def test_optional_parts_are_in_the_name(folder, tmp_path, parts):
    other = change(folder, tmp_path, {**dict.fromkeys(parts, True), 'in_chans': 3, 'global_pool': 'gem'})
    write_peer_files(other)
    name = read(other)['architecture'].removeprefix('timm:')
    made, plain = timm.create_model(name), timm.create_model('reid_resnet18')
    assert {key.partition('.')[0] for key in made.state_dict().keys() - plain.state_dict().keys()} == set(parts)
    assert not timm.models.is_model_pretrained(name)


@pytest.mark.parametrize('cfg', [{'crop_mode': 'center'}, {'interpolation': 'lanczos'}])
def test_images_that_reid_would_prepare_in_another_way(folder, tmp_path, cfg):
    other = change(folder, tmp_path, **cfg)
    write_peer_files(other)
    assert not (other / 'reid_config.json').exists()
    assert (other / 'modules.json').exists()


def test_file_systems_without_links(folder, tmp_path, monkeypatch):
    other = change(folder, tmp_path)
    (other / 'weights.safetensors').unlink()

    def refuse(*args):
        raise OSError('no links here')

    monkeypatch.setattr('os.symlink', refuse)
    write_peer_files(other)
    assert not (other / 'weights.safetensors').is_symlink()
    assert (other / 'weights.safetensors').samefile(other / 'model.safetensors')
    (other / 'weights.safetensors').unlink()
    monkeypatch.setattr('os.link', refuse)
    write_peer_files(other)
    assert not (other / 'weights.safetensors').exists()
