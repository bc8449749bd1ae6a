"""Embeddings in the tables, indices and plots of other packages, by the snippets of docs/embed_search.md."""

import numpy as np
import pytest

import timm_dpa
from timm_dpa.embedding.files import EmbeddingsFile, Sightings, save_embeddings

pytestmark = pytest.mark.integrations

COUNT, WIDTH = 40, 16


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((COUNT, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f'crops/{k % 8}_{k}.jpg' for k in range(COUNT)]
    path = tmp_path / 'a.safetensors'
    save_embeddings(path, EmbeddingsFile(vectors, names, np.zeros((COUNT, 2)), {'model': 'ours'}))
    return path


def test_frame_of_pandas(stored, tmp_path):
    pandas = pytest.importorskip('pandas')
    content = timm_dpa.load_embeddings(stored)
    frame = content.to_frame()
    assert list(frame.columns) == ['image', 'embedding']
    assert frame['image'].tolist() == content.names
    assert frame.attrs == {'model': 'ours'}
    whole = np.stack(frame['embedding'])
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, content.vectors)
    vehicles = frame.groupby(frame['image'].str.extract(r'(\d+)_[^/]*$')[0])['embedding']
    means = {vehicle: np.stack(list(rows)).mean(axis=0) for vehicle, rows in vehicles}
    np.testing.assert_allclose(means['3'], content.vectors[3::8].mean(axis=0), atol=1e-7)

    pytest.importorskip('pyarrow')
    save_embeddings(tmp_path / 'a.parquet', content)
    read = pandas.read_parquet(tmp_path / 'a.parquet')
    assert list(read.columns) == list(frame.columns)
    np.testing.assert_array_equal(np.stack(read['embedding']), content.vectors)


def test_frame_of_boxes():
    pytest.importorskip('pandas')
    seen = Sightings(['7', ''], np.array([1, 2]), np.array([0.5, np.nan]), np.eye(2, 4), np.ones(2, np.float32))
    frame = EmbeddingsFile(np.eye(2, dtype=np.float32), ['a#1', 'a#2'], np.zeros((2, 2)), {}, seen).to_frame()
    assert list(frame.columns) == ['image', 'track', 'frame', 'time', 'x1', 'y1', 'x2', 'y2', 'score', 'embedding']
    assert frame['frame'].tolist() == [1, 2]
    assert frame['time'].isna().tolist() == [False, True]


def test_without_pandas_an_error_names_it(stored, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'pandas', None)
    with pytest.raises(ImportError, match='pip install pandas'):
        timm_dpa.load_embeddings(stored).to_frame()


def test_faiss_finds_what_the_product_finds(stored):
    faiss = pytest.importorskip('faiss')
    vectors = timm_dpa.load_embeddings(stored).vectors
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    similarity, rows = index.search(vectors[:5], 10)
    expected = vectors[:5] @ vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :10])
    np.testing.assert_allclose(similarity, np.sort(-expected, axis=1)[:, :10] * -1, atol=1e-6)


def test_data_set_of_datasets_with_an_index(stored):
    datasets = pytest.importorskip('datasets')
    pytest.importorskip('pandas')
    content = timm_dpa.load_embeddings(stored)
    dataset = datasets.Dataset.from_pandas(content.to_frame()).with_format('numpy')
    np.testing.assert_allclose(np.stack(dataset['embedding']), content.vectors, atol=1e-7)


def test_map_of_umap_keeps_vehicles_together(tmp_path):
    """Two clearly different groups of crops stay apart in the plane."""
    umap = pytest.importorskip('umap')
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(2, WIDTH), 30, axis=0) + 0.1 * rng.standard_normal((60, WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    path = tmp_path / 'a.safetensors'
    save_embeddings(
        path, EmbeddingsFile(vectors, [f'{k}.jpg' for k in range(60)], np.zeros((60, 2)), {'model': 'ours'})
    )
    content = timm_dpa.load_embeddings(path)
    places = umap.UMAP(metric='cosine').fit_transform(content.vectors)
    assert places.shape == (60, 2)
    nearest = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(nearest, np.inf)
    assert (nearest.argmin(axis=1) // 30 == np.arange(60) // 30).all()
