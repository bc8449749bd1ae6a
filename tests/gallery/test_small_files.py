"""Small files of many commits are merged, and how much that writes again."""

from tests.support.galleries import open_gallery, unit
from timm_dpa.gallery import gallery as module
from timm_dpa.gallery.rows import GalleryRow


def test_merges_write_a_few_times_the_rows_however_many_there_are(tmp_path, monkeypatch):
    """Old versions are kept for an hour, so that all that was written is still there to be counted."""
    monkeypatch.setattr(module, '_COMMIT', 10)
    monkeypatch.setattr(module, '_MERGE_EVERY', 2)
    vectors = unit(800, 512)
    gallery = open_gallery(tmp_path / 'garage')
    gallery.add(GalleryRow(f'{index}.jpg', vector) for index, vector in enumerate(vectors))
    files = [path.stat().st_size for path in (tmp_path / 'garage').glob('*.lance/data/*')]
    assert len(gallery) == 800
    assert len(files) > 80  # those of the commits, and those that they were merged to
    assert max(files) > vectors.nbytes / 2
    assert sum(files) < 8 * vectors.nbytes
