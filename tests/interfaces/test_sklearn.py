import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from bmsdp import gallery
from bmsdp.applications import community

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from bmsdp.interfaces.sklearn import CommunityDetection


@parametrize_with_checks([CommunityDetection(), CommunityDetection(3, affinity="nearest_neighbors", random_state=0)])
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


def blobs(seed=0):
    return make_blobs(n_samples=90, centers=[[0, 0], [6, 0], [0, 6]], cluster_std=0.8, random_state=seed)


def test_clusters_of_points_are_found():
    X, y = blobs()
    for affinity in ("rbf", "nearest_neighbors"):
        estimator = CommunityDetection(3, affinity=affinity, random_state=0)
        labels = estimator.fit_predict(X)
        assert adjusted_rand_score(labels, y) == 1 and estimator.n_communities_ == 3
        assert estimator.modularity_ <= estimator.bound_ and estimator.n_features_in_ == 2
        W = estimator.affinity_matrix_
        assert estimator.modularity_ == pytest.approx(community.modularity(W, labels), abs=1e-12)


def test_neighbours_follow_shapes_that_no_line_separates():
    X, y = make_moons(200, noise=0.05, random_state=0)
    estimator = CommunityDetection(2, affinity="nearest_neighbors", n_neighbors=8, random_state=0).fit(X)
    assert adjusted_rand_score(estimator.labels_, y) > 0.8


@pytest.mark.parametrize("form", [lambda W: W, lambda W: W.toarray(), sparse.csc_matrix])
def test_a_precomputed_graph_gives_what_the_application_gives(form):
    W = gallery.planted_partition(120, 3, 0.4, 0.05, rng=0)
    estimator = CommunityDetection(3, affinity="precomputed", random_state=0).fit(form(W))
    assert adjusted_rand_score(estimator.labels_, np.arange(120) // 40) == 1
    assert estimator.result_.success and (abs(sparse.csr_array(estimator.affinity_matrix_) - W)).max() == 0
    assert estimator.bound_ >= community.modularity(W, np.arange(120) // 40)


def test_the_number_of_communities_is_chosen():
    X, y = blobs()
    estimator = CommunityDetection(affinity="nearest_neighbors", n_neighbors=30, random_state=0).fit(X)
    assert estimator.n_communities_ == 3 and adjusted_rand_score(estimator.labels_, y) == 1
    finer = CommunityDetection(affinity="nearest_neighbors", n_neighbors=30, resolution=3.0, random_state=0).fit(X)
    assert finer.n_communities_ > 3


def test_clone_pickle_and_seeds():
    X, _ = blobs(1)
    estimator = CommunityDetection(4, random_state=3, tol=1e-3)
    assert clone(estimator).get_params() == estimator.get_params()
    fitted = pickle.loads(pickle.dumps(estimator.fit(X)))
    assert type(fitted) is CommunityDetection and np.array_equal(fitted.labels_, estimator.labels_)
    assert np.array_equal(clone(estimator).fit(X).labels_, estimator.labels_)


@pytest.mark.parametrize(("options", "needed"), [
    ({"affinity": "cosine"}, "'rbf'"), ({"gamma": -1.0}, "positive number"), ({"gamma": "auto"}, "scale"),
    ({"n_neighbors": 0}, "positive integer"), ({"n_communities": 0}, "positive integer"), ({"resolution": -1.0}, "positive"),
    ({"tol": 0}, "tol"), ({"affinity": "precomputed"}, "square"),
])  # fmt: skip
def test_bad_parameters_are_refused_when_fitting(options, needed):
    estimator = CommunityDetection(**options)
    with pytest.raises(ValueError, match=needed):
        estimator.fit(blobs()[0])


def test_bad_affinities_are_refused():
    estimator = CommunityDetection(2, affinity="precomputed")
    with pytest.raises(ValueError, match="negative"):
        estimator.fit(-np.ones((3, 3)))
    with pytest.raises(ValueError, match="not symmetric"):
        estimator.fit(np.triu(np.ones((3, 3))))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_scikit_learn_is_imported_only_when_asked_for():
    done = run("import sys, bmsdp, bmsdp.interfaces.sklearn as s; print('sklearn' in sys.modules, dir(s)); s.CommunityDetection(2)")
    assert done.returncode == 0 and done.stdout.split()[0] == "False" and "CommunityDetection" in done.stdout
    missing = run("import sys; sys.modules['sklearn'] = None\nfrom bmsdp.interfaces.sklearn import CommunityDetection")
    assert missing.returncode == 1 and 'pip install "bmsdp[sklearn]"' in missing.stderr.splitlines()[-1]
    with pytest.raises(ImportError, match="SpectralClustering"):
        from bmsdp.interfaces.sklearn import SpectralClustering  # noqa: F401
