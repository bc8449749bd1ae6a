"""Embeddings files, read without this package where the docstrings say how."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from timm_dpa.embedding.files import EmbeddingsFile, load_embeddings, save_embeddings

#: paths that a format may stumble over; the third is not UTF-8
NAMES = ['a.jpg', 'é ü, "b".jpg', os.fsdecode(b'caf\xe9.jpg'), 'new\nline']


@pytest.fixture
def content():
    vectors = np.random.default_rng(0).standard_normal((4, 6), dtype=np.float32) * np.float32(1e-3)
    metadata = {'model': 'm', 'source': os.fsdecode(b'\xe9')}
    return EmbeddingsFile(vectors, NAMES, np.arange(8).reshape(4, 2), metadata)


class TestFormats:
    @pytest.mark.parametrize('name', ['a', 'a.safetensors', 'a.b.SAFETENSORS'])
    def test_round_trip(self, tmp_path, content, name):
        save_embeddings(tmp_path / name, content)
        loaded = load_embeddings(str(tmp_path / name))
        assert loaded.names == NAMES
        assert (loaded.vectors == content.vectors).all()
        assert loaded.stamps.tolist() == content.stamps.tolist()
        assert loaded.metadata['model'] == 'm'
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_npy(self, tmp_path, content):
        save_embeddings(tmp_path / 'a.npy', content)
        stored = np.load(tmp_path / 'a.npy')
        assert stored.dtype == np.float32
        assert (stored == content.vectors).all()
        assert json.loads((tmp_path / 'a.names.json').read_text()) == NAMES

    def test_csv_gives_the_same_numbers_again(self, tmp_path, content):
        save_embeddings(tmp_path / 'a.csv', content)
        with (tmp_path / 'a.csv').open(newline='', encoding='utf-8', errors='surrogateescape') as file:
            header, *rows = csv.reader(file)
        assert header == ['image', 'e0', 'e1', 'e2', 'e3', 'e4', 'e5']
        assert [row[0] for row in rows] == NAMES
        assert (np.array([row[1:] for row in rows]).astype(np.float32) == content.vectors).all()

    def test_parquet(self, tmp_path, content):
        parquet = pytest.importorskip('pyarrow.parquet')
        many = EmbeddingsFile(np.tile(content.vectors, (3000, 1)), NAMES * 3000, np.zeros((12000, 2)), content.metadata)
        save_embeddings(tmp_path / 'a.parquet', many)
        table = parquet.read_table(tmp_path / 'a.parquet')
        assert table.column_names == ['image', 'embedding']
        assert (np.array(table['embedding'].to_pylist(), np.float32) == many.vectors).all()
        assert table['image'].to_pylist()[8:12] == [NAMES[0], NAMES[1], 'caf\\udce9.jpg', NAMES[3]]
        assert table.schema.metadata[b'model'] == b'm'

    def test_no_embeddings(self, tmp_path):
        empty = EmbeddingsFile(np.empty((0, 5)), [], np.empty((0, 2)), {})
        for suffix in ('', '.npy', '.csv'):
            save_embeddings(tmp_path / f'a{suffix}', empty)
        assert load_embeddings(tmp_path / 'a').vectors.shape == np.load(tmp_path / 'a.npy').shape == (0, 5)

    def test_unknown(self, tmp_path, content):
        with pytest.raises(ValueError, match=r'a\.h5: the name must end in \.safetensors, \.npy, \.csv, \.parquet'):
            save_embeddings(tmp_path / 'a.h5', content)


class TestLoad:
    @pytest.fixture
    def tensors(self):
        return {
            'embeddings': np.eye(3, 4, dtype=np.float32),
            'names': np.frombuffer(b'["a", "b", "c"]', np.uint8),
            'stamps': np.zeros((3, 2), np.int64),
        }

    def save(self, path: Path, content: dict, **metadata: str) -> Path:
        save_file(content, path, metadata={'format': 'timm-dpa embeddings 1', **metadata})
        return path

    def test_ours(self, tmp_path, tensors):
        assert load_embeddings(self.save(tmp_path / 'a', tensors)).names == ['a', 'b', 'c']

    @pytest.mark.parametrize(
        'change',
        [
            {'names': np.frombuffer(b'["a", "b"]', np.uint8)},
            {'names': np.frombuffer(b'not json at all', np.uint8)},
            {'names': np.frombuffer(b'\xff\xfe', np.uint8)},
            {'names': np.frombuffer(b'7', np.uint8)},
            {'embeddings': np.full((3, 4), np.nan, np.float32)},
            {'embeddings': np.zeros(3, np.float32)},
            {'stamps': np.zeros((2, 2), np.int64)},
            {'stamps': None},
        ],
    )
    def test_damaged(self, tmp_path, tensors, change):
        changed = {key: value for key, value in {**tensors, **change}.items() if value is not None}
        path = self.save(tmp_path / 'a.safetensors', changed)
        with pytest.raises(ValueError, match=r'a\.safetensors: not an embeddings file, or a damaged one'):
            load_embeddings(path)

    def test_another_format(self, tmp_path, tensors):
        path = self.save(tmp_path / 'a.safetensors', tensors, format='pt')
        with pytest.raises(ValueError, match='timm-dpa embed'):
            load_embeddings(path)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no such embeddings file'):
            load_embeddings(tmp_path / 'a')

    @pytest.mark.parametrize('suffix', ['.npy', '.csv', '.parquet'])
    def test_other_formats_do_not_say_which_model_made_them(self, tmp_path, suffix):
        (tmp_path / f'a{suffix}').write_bytes(b'numbers')
        with pytest.raises(ValueError, match=rf'a\{suffix}: does not say which model made it; use the \.safetensors'):
            load_embeddings(tmp_path / f'a{suffix}')
