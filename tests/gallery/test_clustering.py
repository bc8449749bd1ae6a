import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics.cluster import pair_confusion_matrix

from timm_dpa.gallery import clustering
from timm_dpa.gallery.clustering import cannot_link, cluster_tracks, pair_scores


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def blobs(vehicles, each, width=16, noise=0.25, seed=0):
    """Unit vectors of `vehicles` directions, `each` with noise, and which vehicle each is of; in random order."""
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(vehicles, width)))
    truth = rng.permutation(np.repeat(np.arange(vehicles), each))
    return unit(centers[truth] + noise * rng.normal(size=(len(truth), width))), truth


def numbered(labels):
    """Labels from 0 in the order of their first appearance."""
    seen = {}
    return [seen.setdefault(label, len(seen)) for label in labels]


def slow_clusters(vectors, threshold, forbidden):
    """The definition: the most similar two groups that may be merged, until none is similar enough; in float64."""
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    groups = [[row] for row in range(len(vectors))]
    no = {frozenset(pair) for pair in forbidden}
    while True:
        best = (threshold, None)
        for i, a in enumerate(groups):
            for j, b in enumerate(groups[:i]):
                if not any(frozenset((x, y)) in no for x in a for y in b):
                    best = max(best, (cosines[np.ix_(a, b)].mean(), (i, j)), key=lambda each: each[0])
        if best[1] is None:
            break
        i, j = best[1]
        groups[j] += groups.pop(i)
    return [next(k for k, group in enumerate(groups) if row in group) for row in range(len(vectors))]


@pytest.mark.parametrize('threshold', [0.2, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize('seed', range(3))
def test_without_exclusions_the_groups_are_those_of_scipy(threshold, seed):
    vectors, _ = blobs(30, 7, seed=seed)
    distances = 1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), method='average')
    ours = cluster_tracks(vectors, threshold)
    assert numbered(fcluster(tree, 1 - threshold, 'distance')) == ours.tolist()


@pytest.mark.parametrize('seed', range(6))
def test_with_exclusions_the_groups_are_those_of_the_definition(seed):
    vectors, truth = blobs(6, 6, noise=0.3, seed=seed)
    forbidden = np.stack(np.nonzero(np.triu(truth[:, None] == truth, 1)), 1)[::4]  # pairs that would be merged
    ours = cluster_tracks(vectors, 0.4, forbidden)
    assert ours.tolist() == numbered(slow_clusters(vectors, 0.4, forbidden))
    assert (ours[forbidden[:, 0]] != ours[forbidden[:, 1]]).all()
    assert ours.tolist() != cluster_tracks(vectors, 0.4).tolist()


def test_exclusions_reach_through_groups():
    # 0 and 1 are most similar and merged first: where 0 may not meet 2, 2 stays out of the group of both
    vectors = unit(np.array([[1, 0], [1, 0.01], [1, 0.1]]))
    assert cluster_tracks(vectors, 0.5).tolist() == [0, 0, 0]
    assert cluster_tracks(vectors, 0.5, np.array([[0, 2]])).tolist() == [0, 0, 1]
    assert cluster_tracks(vectors, 0.5, np.array([[0, 1]])).tolist() == [0, 1, 1]


def test_blocks_of_the_product_do_not_change_the_groups(monkeypatch):
    vectors, _ = blobs(20, 5)
    expected = cluster_tracks(vectors, 0.6)
    monkeypatch.setattr(clustering, '_BLOCK', 230)
    assert cluster_tracks(vectors, 0.6).tolist() == expected.tolist()


def test_clear_vehicles_are_found_among_many():
    vectors, truth = blobs(400, 5, width=128, noise=0.03)
    assert pair_scores(truth, cluster_tracks(vectors, 0.6)).f1 == 1


def test_one_track_and_none():
    assert cluster_tracks(np.empty((0, 4), np.float32), 0.5).tolist() == []
    assert cluster_tracks(np.array([[0.0, 1.0]]), 0.5).tolist() == [0]


@pytest.mark.parametrize(
    ('vectors', 'threshold', 'forbidden', 'message'),
    [
        (np.eye(3)[0], 0.5, None, r'\(N, D\)'),
        (2 * np.eye(3), 0.5, None, 'unit length'),
        (np.full((3, 3), np.nan), 0.5, None, 'finite'),
        (np.eye(3), 1.5, None, '-1..1, not 1.5'),
        (np.eye(3), float('nan'), None, '-1..1, not nan'),
        (np.eye(3), 0.5, np.array([[0, 3]]), 'rows 0..2'),
    ],
)
def test_what_cannot_be_clustered_is_refused(vectors, threshold, forbidden, message):
    with pytest.raises(ValueError, match=message):
        cluster_tracks(vectors, threshold, forbidden)


def test_too_many_candidates_are_refused_before_memory_is_full(monkeypatch):
    monkeypatch.setattr(clustering, 'MOST_CANDIDATES', 1000)
    vectors, _ = blobs(10, 5)
    with pytest.raises(ValueError, match='more than 500 pairs of the 50 tracks reach the threshold -1; raise it'):
        cluster_tracks(vectors, -1)
    cluster_tracks(vectors, 0.5)


@pytest.mark.parametrize('seed', range(4))
def test_pair_scores_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, 8, 60), rng.integers(0, 12, 60)
    (_, wrong), (missed, right) = pair_confusion_matrix(truth, found)
    scores = pair_scores(truth, found)
    assert scores.precision == pytest.approx(right / (right + wrong), abs=1e-12)
    assert scores.recall == pytest.approx(right / (right + missed), abs=1e-12)
    assert scores.f1 == pytest.approx(2 * right / (2 * right + wrong + missed), abs=1e-12)


def test_pair_scores_where_no_pair_is_said_or_there():
    alone = pair_scores(['a', 'a', 'b'], [0, 1, 2])
    assert (alone.precision, alone.recall, alone.f1) == (1, 0, 0)
    assert pair_scores(['a', 'b'], [0, 1]).f1 == pair_scores([], []).f1 == 1
    with pytest.raises(ValueError, match='2 vehicles for 1 tracks'):
        pair_scores(['a', 'b'], [0])


def test_pairs_of_one_camera_and_one_time_are_found():
    track = np.array([0, 1, 2, 2, 3, 0, 4, 4, 5])
    camera = ['a', 'a', 'b', 'a', 'a', 'b', 'a', 'a', None]
    time = [10, 10, 10, 20, 20, 10, 30, 30, 10]
    assert cannot_link(track, camera, time).tolist() == [[0, 1], [0, 2], [2, 3]]
    assert cannot_link(track, [None] * 9, time).shape == cannot_link(track, camera, [None] * 9).shape == (0, 2)
    with pytest.raises(ValueError, match='9 tracks, 1 cameras and 9 times'):
        cannot_link(track, ['a'], time)


def test_many_images_of_one_frame_against_a_loop_over_all_pairs():
    rng = np.random.default_rng(1)
    track, camera, time = rng.integers(0, 40, 400), rng.integers(0, 3, 400), rng.integers(0, 60, 400)
    expected = {
        (a, b)
        for a, c, t in zip(track, camera, time, strict=True)
        for b, d, u in zip(track, camera, time, strict=True)
        if a < b and c == d and t == u
    }
    found = cannot_link(track, [f'camera {c}' for c in camera], time.tolist())
    assert set(map(tuple, found.tolist())) == expected
    assert found.tolist() == sorted(found.tolist())
