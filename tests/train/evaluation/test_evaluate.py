"""Evaluation from image files to the table, against numpy on embeddings made one by one."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import ranking_reference as reference
from tests.support.models import tiny
from tests.support.vehicles import write_vehicles
from timm_dpa import FeatureExtractor
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.query_gallery import pick_query_gallery
from timm_dpa.train.evaluation.evaluate import embed_split, evaluate_model, markdown_table, write_evaluation


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return load_data(write_vehicles(tmp_path_factory.mktemp('data') / 'vehicles', identities=18, images=6))


@pytest.fixture(scope='module')
def extractor():
    return FeatureExtractor(tiny('dpa', attn_args={'grid_size': 4}), precision='fp32', image_size=32, batch_size=5)


def expected(extractor, parts):
    sides = [np.concatenate([extractor(path) for path in split.paths]) for split in (parts.query, parts.gallery)]
    distances = reference.cosine_distances(*sides)
    cameras = (parts.query.camids, parts.gallery.camids) if parts.exclude_same_camera else (None, None)
    return reference.metrics(distances, parts.query.pids, parts.gallery.pids, *cameras)


def assert_same(result, wanted):
    cmc, mean_ap, minp = wanted[:3]
    assert result.metrics['mAP'] == pytest.approx(mean_ap, abs=1e-6)
    assert result.metrics['mINP'] == pytest.approx(minp, abs=1e-6)
    np.testing.assert_allclose(result.cmc, cmc, atol=1e-6)


@pytest.mark.parametrize('protocol', ['fixed', 'vru', 'first-last', 'cross-camera'])
def test_every_protocol(data, extractor, protocol):
    result = evaluate_model(extractor, data, protocol, draws=1)
    parts = pick_query_gallery(data, protocol, (0, 0))
    assert_same(result, expected(extractor, parts))
    same, different = cosines(extractor, parts)
    found = result.verification
    assert (found.same_pairs, found.different_pairs) == (len(same), len(different))
    assert found.thresholds[2].cosine == pytest.approx(np.quantile(different, 0.95, method='higher'), abs=0.002)


def cosines(extractor, parts):
    """Of the pairs of one vehicle and of different ones that count."""
    sides = [np.concatenate([extractor(path) for path in split.paths]) for split in (parts.query, parts.gallery)]
    values = 1 - reference.cosine_distances(*sides)
    is_same = parts.query.pids[:, None] == parts.gallery.pids
    left_out = is_same & (parts.query.camids[:, None] == parts.gallery.camids) & parts.exclude_same_camera
    return values[is_same & ~left_out], values[~is_same]


def test_draws_are_averaged(data, extractor):
    for protocol in ('vru', 'cross-camera'):
        result = evaluate_model(extractor, data, protocol, draws=3, seed=5)
        each = [expected(extractor, pick_query_gallery(data, protocol, (5, draw)))[1] for draw in range(3)]
        assert result.metrics['mAP'] == pytest.approx(np.mean(each), abs=1e-6)
        assert result.deviation['mAP'] == pytest.approx(np.std(each, ddof=1), abs=1e-6)


def test_queries_of_some_identities_meet_the_whole_gallery(data, extractor):
    names = [data.identities[pid] for pid in np.unique(data.query.pids)[:2]]
    result = evaluate_model(extractor, data, query_identities=names)
    parts = pick_query_gallery(data, None)
    chosen = parts._replace(query=parts.query.subset(np.isin(parts.query.pids, np.unique(data.query.pids)[:2])))
    assert_same(result, expected(extractor, chosen))
    with pytest.raises(ValueError, match='no identity is called nobody'):
        evaluate_model(extractor, data, query_identities=['nobody'])


def test_flip_embeds_the_mirror_image_too(data):
    model = tiny('dpa', attn_args={'grid_size': 4})
    plain, flipped = (FeatureExtractor(model, precision='fp32', image_size=32, flip=flip) for flip in (False, True))
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    both = plain.embed_pixels(pixels) + plain.embed_pixels(pixels.flip(-1))
    torch.testing.assert_close(flipped.embed_pixels(pixels), both / both.norm(dim=1, keepdim=True))
    assert evaluate_model(flipped, data).settings['flip'] is True
    assert plain.describe() != flipped.describe()


def test_rerank_changes_the_order_only(data, extractor):
    plain, again = (evaluate_model(extractor, data, use_rerank=use) for use in (False, True))
    assert again.settings['rerank'] is True
    assert again.metrics['valid_queries'] == plain.metrics['valid_queries']
    assert again.metrics['mAP'] != plain.metrics['mAP']


def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path, extractor):
    root = write_vehicles(tmp_path / 'data', identities=18, images=6)
    bad = sorted((root / 'image_test').iterdir())[2]
    bad.write_bytes(b'')
    result = evaluate_model(extractor, load_data(root))
    assert list(result.skipped) == [str(bad)]
    bad.unlink()
    assert result.metrics == pytest.approx(evaluate_model(extractor, load_data(root)).metrics)


def test_an_image_in_two_parts_is_embedded_once(data, extractor):
    twice = data.query.subset(np.repeat(np.arange(len(data.query)), 2))
    vectors, rows, _ = embed_split(extractor, twice)
    assert len(vectors) == len(rows) == len(data.query)


def test_wrong_use(data, extractor):
    with pytest.raises(ValueError, match='picks nothing at random'):
        evaluate_model(extractor, data, 'fixed', draws=2)
    with pytest.raises(ValueError, match='at least 1'):
        evaluate_model(extractor, data, 'vru', draws=0)


def test_table_and_numbers(data, extractor, tmp_path):
    result = evaluate_model(extractor, data, 'vru', draws=2)
    table, numbers = write_evaluation(result, 'ours', tmp_path, data='somewhere')
    content = json.loads(numbers.read_text())
    assert (content['name'], content['data'], content['settings']['draws']) == ('ours', 'somewhere', 2)
    assert content['metrics'] == result.metrics
    heading, _, row, _, line, _, *thresholds, _, note = table.read_text().strip().split('\n')
    assert re.split(r' *\| *', heading)[1:-1] == ['Method', 'mAP', 'Rank-1', 'Rank-5', 'Rank-10', 'mINP']
    assert f'{result.verification.different_pairs:,} of different ones' in line
    assert [re.split(r' *\| *', text)[1] for text in thresholds] == [
        'False matches', '------------:', '0.1 %', '1 %', '5 %'
    ]  # fmt: skip
    assert content['verification']['equal_error_rate'] == result.verification.equal_error_rate
    assert note == f'Note: {result.warnings[0]}.'
    mean, deviation = 100 * result.metrics['mAP'], 100 * result.deviation['mAP']
    assert re.split(r' *\| *', row)[1:3] == ['ours', f'{mean:.2f} ± {deviation:.2f}']
    assert markdown_table([('a', result), ('b', result)]).count('\n') == 3


def test_expansion_and_the_camera_rule_are_options(data, extractor):
    parts = pick_query_gallery(data)
    assert parts.exclude_same_camera
    free = evaluate_model(extractor, data, exclude_same_camera=False)
    assert_same(free, expected(extractor, parts._replace(exclude_same_camera=False)))
    assert free.settings['same_camera_excluded'] is False

    query, gallery = (
        np.concatenate([extractor(path) for path in split.paths]).astype(np.float64)
        for split in (parts.query, parts.gallery)
    )
    similarity = query @ gallery.T
    nearest = np.argsort(-similarity, axis=1)[:, :3]
    weights = np.take_along_axis(similarity, nearest, axis=1).clip(min=0) ** 3
    query = query + (weights[..., None] * gallery[nearest]).sum(axis=1)
    cameras = (parts.query.camids, parts.gallery.camids)
    wanted = reference.metrics(
        reference.cosine_distances(query, gallery), parts.query.pids, parts.gallery.pids, *cameras
    )
    result = evaluate_model(extractor, data, expand=3)
    assert_same(result, wanted)
    assert result.settings['expand'] == 3
    with pytest.raises(ValueError, match='expand'):
        evaluate_model(extractor, data, expand=-1)


@pytest.mark.parametrize('protocol', ['fixed', 'vru', 'first-last', 'cross-camera'])
@pytest.mark.parametrize('kind', ['copy', 'link'])
def test_a_query_never_finds_its_own_file(tmp_path, extractor, protocol, kind):
    """Copies of the test images under other names change nothing but the number of images."""
    root = write_vehicles(tmp_path / 'data', identities=18, images=6)
    for path in sorted((root / 'image_query').iterdir()):
        twin = root / 'image_test' / f'{path.stem}_again.jpg'
        shutil.copy(path, twin) if kind == 'copy' else twin.symlink_to(path)
    data = load_data(root)
    result = evaluate_model(extractor, data, protocol, exclude_same_camera=False, draws=1)
    parts = pick_query_gallery(data, protocol, (0, 0), False)
    sides = [np.concatenate([extractor(path) for path in split.paths]) for split in parts[:2]]
    content = [[Path(path).read_bytes() for path in split.paths] for split in parts[:2]]
    pids = (parts.query.pids, parts.gallery.pids)
    assert_same(result, reference.metrics(reference.cosine_distances(*sides), *pids, files=content, tie=5e-7))
    own = sum(query in content[1] for query in content[0])
    assert (own > 0) == (protocol != 'first-last')  # whose gallery are the last images by name
    assert result.settings['same_file_excluded'] == own
    said = f'{own} of {len(content[0])} queries are in the gallery as the same file'
    assert any(said in warning for warning in result.warnings) == (own > 0)


def test_queries_in_the_gallery_are_no_score(tmp_path, extractor):
    """A CSV that lists paths as query and gallery: Rank-1 was 100 %."""
    root = write_vehicles(tmp_path / 'data', identities=18, images=6)
    rows = []
    for path in sorted((root / 'image_test').iterdir()):
        row = f'{path.relative_to(tmp_path)},{path.name[:4]}'
        rows += [f'{row},query', f'{row},gallery']
    (tmp_path / 'all.csv').write_text('path,pid,split\n' + '\n'.join(rows))
    data = load_data(tmp_path / 'all.csv')
    result = evaluate_model(extractor, data)
    vectors = np.concatenate([extractor(path) for path in data.query.paths])
    distances = reference.cosine_distances(vectors, vectors)
    files = (data.query.paths, data.gallery.paths)
    assert_same(result, reference.metrics(distances, data.query.pids, data.gallery.pids, files=files))
    reranked = evaluate_model(extractor, data, use_rerank=True)
    assert reranked.metrics['rank1'] < 1
    assert reranked.settings['same_file_excluded'] == len(data.query)


def test_default_draws_are_those_of_the_command(data, extractor):
    assert evaluate_model(extractor, data, 'vru').settings['draws'] == 10
    assert evaluate_model(extractor, data).settings['draws'] == 1


def test_shared_identities_are_in_the_results(tmp_path, extractor, caplog):
    root = write_vehicles(tmp_path / 'data', identities=18, images=6)
    for path in sorted((root / 'image_test').glob('0012*')):
        shutil.copy(path, root / 'image_train' / path.name.replace('.jpg', '_more.jpg'))
    data = load_data(root)
    result = evaluate_model(extractor, data)
    assert result.settings['shared_identities'] == 1
    assert '1 of 6 test identities are in the training part too, such as 0012' in caplog.text
    table, numbers = write_evaluation(result, 'm', tmp_path / 'out')
    assert 'Note: 1 of 6 test identities' in table.read_text()
    assert json.loads(numbers.read_text())['warnings'] == result.warnings
    before = caplog.text.count('test identities')
    evaluate_model(extractor, data)
    assert caplog.text.count('test identities') == before


def test_a_test_that_cannot_fail_is_refused(tmp_path, extractor):
    root = write_vehicles(tmp_path / 'data', identities=3, images=6)
    with pytest.raises(ValueError, match='show one vehicle'):
        evaluate_model(extractor, load_data(root))
