"""Classifiers in closed form against the formulas, by other libraries and in double precision."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, GROUPS, make_method, train
from scipy.spatial.distance import mahalanobis
from torch.nn import functional as F

from datasets.data import Data, Split
from datasets.tasks import split_by_class
from methods import fecam, ranpac
from models.encoders import identity
from models.learner import HEADS, Learner
from utils.settings import BadInput

NAMES = ["ncm", "slda", "ranpac", "fecam"]


@pytest.fixture(scope="module")
def features() -> Data:
    """Correlated features of six classes, 64 of them, 40 samples each."""
    g = torch.Generator().manual_seed(0)
    mix, centres = torch.randn(64, 64, generator=g) / 8, 0.4 * torch.randn(6, 64, generator=g)

    def split(n: int) -> Split:
        y = torch.arange(6).repeat_interleave(n)
        return Split(centres[y] + torch.randn(6 * n, 64, generator=g) @ mix, y)

    return Data(split(40), split(20), tuple("abcdef"))


def learned(name: str, data: Data, scenario: str = "class", groups=GROUPS, **options):
    method = make_method(name, scenario, **options)
    for task in split_by_class(data, groups, 0.0, torch.Generator(), CPU):
        train(method, task, steps=0)
    method.learner.see(len(groups))
    return method


def numpy_of(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return split.x.double().numpy(), split.y.numpy()


def test_ncm_is_scikit_learn_s(features):
    from sklearn.neighbors import NearestCentroid

    x, y = numpy_of(features.train)
    theirs = NearestCentroid().fit(x, y).predict(features.test.x.double().numpy())
    assert learned("ncm", features).predict(features.test.x, 0).tolist() == theirs.tolist()
    cosine = learned("ncm", features, distance="cosine").logits(features.test.x, 0)
    means = np.stack([x[y == c].mean(0) for c in range(6)])
    expected = F.cosine_similarity(features.test.x.double()[:, None], torch.from_numpy(means)[None], dim=2)
    torch.testing.assert_close(cosine, expected.log_softmax(1).float())


def test_the_streaming_covariance_of_slda_is_that_of_the_batch(features):
    method = learned("slda", features, shrinkage=0.1)
    x, y = numpy_of(features.train)
    within = np.concatenate([x[y == c] - x[y == c].mean(0) for c in range(6)])
    expected = within.T @ within / len(x)
    np.testing.assert_allclose(method.covariance.numpy(), expected, atol=1e-12)
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(6, 1 / 6)).fit(x, y)
    ours = learned("slda", features, shrinkage=1e-9).logits(features.test.x, 0)
    expected = theirs.predict_log_proba(features.test.x.double().numpy())
    np.testing.assert_allclose(ours.exp().numpy(), np.exp(expected), atol=2e-3)


def test_ranpac_is_ridge_regression_on_its_projection(features):
    from sklearn.linear_model import Ridge

    method = learned("ranpac", features, ridge=3.0)
    h = method.projected(features.train.x.double()).numpy()
    labels = F.one_hot(features.train.y, 6).double().numpy()
    theirs = Ridge(3.0, fit_intercept=False).fit(h, labels).predict(method.projected(features.test.x.double()).numpy())
    method.predict(features.test.x, 0)
    np.testing.assert_allclose(method.scores(features.test.x).numpy(), theirs, atol=1e-4)


def test_ranpac_takes_the_least_penalty_that_has_a_solution(features):
    method = learned("ranpac", features)
    assert float(method.ridge) in ranpac.RIDGES
    assert float(learned("ranpac", features, ridge=7.0).ridge) == 7.0
    method.ridge.fill_(1e-8)
    method.gram.fill_(1e9)  # of rank 1
    method._solution = None
    expected = next(
        w for r in ranpac.RIDGES if (w := ranpac.ridge_regression(method.gram, method.targets, r)) is not None
    )
    assert torch.equal(method.solution, expected.float()), "the least penalty that has a solution"
    fixed = learned("ranpac", features, ridge=1e-8)
    fixed.gram.fill_(1e9)
    fixed._solution = None
    with pytest.raises(FloatingPointError, match=r"no solution at ridge 1e-08; raise method\.ridge"):
        fixed.predict(features.test.x, 0)
    singular = torch.ones(3, 3, dtype=torch.double)
    assert ranpac.ridge_regression(singular, torch.ones(3, 1, dtype=torch.double), 0.0) is None


def test_fecam_is_a_mahalanobis_classifier(features):
    method = learned("fecam", features)
    x, y = (part.copy() for part in numpy_of(features.train))
    transform = lambda z: np.sign(z) * np.abs(z) ** 0.5  # noqa: E731
    unit = lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True)  # noqa: E731
    x, test = transform(x), unit(transform(features.test.x.double().numpy()))
    expected = np.zeros((len(test), 6))
    for c in range(6):
        covariance = np.cov(x[y == c].T, bias=True)
        off = covariance[~np.eye(64, dtype=bool)].mean()
        covariance = covariance + np.diag(covariance).mean() * np.eye(64) + off * (1 - np.eye(64))
        deviation = np.sqrt(np.diag(covariance))
        precision, mean = np.linalg.inv(covariance / np.outer(deviation, deviation)), unit(x[y == c].mean(0))
        expected[:, c] = [-0.5 * mahalanobis(row, mean, precision) ** 2 for row in test]
    method.predict(features.test.x, 0)
    np.testing.assert_allclose(method.scores(features.test.x).numpy(), expected, atol=1e-4)


def test_shrinkage_and_normalisation_by_hand():
    covariance = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.double)
    assert fecam.shrunk(covariance, 2.0).tolist() == [[10.0, 3.0], [3.0, 8.0]]
    torch.testing.assert_close(fecam.normalised(covariance).diagonal(), torch.ones(2, dtype=torch.double))
    torch.testing.assert_close(fecam.normalised(covariance)[0, 1], torch.tensor(1 / 8**0.5, dtype=torch.double))


def test_the_moved_features_of_fetril_have_the_mean_of_the_old_class(features):
    method = learned("fetril", features)
    task = split_by_class(features, GROUPS, 0.0, torch.Generator(), CPU)[2]
    method.learner.see(2)
    training = method.begin_task(task)
    assert len(training.train) == 80 + 4 * 40 and training.classes == (0, 1, 2, 3, 4, 5)
    for c in range(4):
        moved, real = (split.x[split.y == c].mean(0) for split in (training.train, features.train))
        torch.testing.assert_close(moved, real, atol=1e-5, rtol=0)
    spread = [training.train.x[training.train.y == c].var(0) for c in range(6)]
    assert all(any(torch.allclose(spread[c], spread[new], atol=1e-5) for new in (4, 5)) for c in range(4))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_samples_batches_and_tasks_makes_no_difference(features, name):
    options = {"ridge": 1.0} if name == "ranpac" else {}
    shuffled = torch.randperm(len(features.train), generator=torch.Generator().manual_seed(1))
    other = Data(features.train.take(shuffled), features.test, features.classes)
    logits = learned(name, features, **options).logits(features.test.x, 0)
    again = learned(name, other, groups=[(4, 5), (0, 1), (2, 3)], **options).logits(features.test.x, 0)
    torch.testing.assert_close(logits, again, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
@pytest.mark.parametrize("name", NAMES)
def test_they_classify_in_every_scenario_and_before_anything_is_learned(features, name, scenario):
    tasks = split_by_class(features, GROUPS, 0.0, torch.Generator(), CPU)
    untrained = make_method(name, scenario)
    assert torch.isin(untrained.predict(tasks[1].test.x, 1), torch.tensor([0] if scenario == "class" else [2])).all()
    method = learned(name, features, scenario)
    for task in tasks:
        assert (method.predict(task.test.x, task.index) == task.test.y).float().mean() > 0.7
    few = torch.cat([(tasks[0].train.y == c).nonzero()[:3, 0] for c in (0, 1)])  # a nearly singular covariance
    for some in (slice(None), few):
        first = make_method(name, scenario)
        train(first, replace(tasks[0], train=tasks[0].train.take(some)), steps=0)
        seen = first.predict(features.test.x, 0).unique().tolist()
        assert set(seen) <= {0, 1}, "no class is predicted that was never seen"
        of_first = features.test.y < 2
        right = first.predict(features.test.x[of_first], 0) == features.test.y[of_first]
        assert right.float().mean() > 0.6, "nor do unseen classes hide differences"


@pytest.mark.parametrize("name", ["ncm", "ranpac", "fecam"])
def test_a_position_is_that_of_the_class_with_the_largest_score(features, name):
    """In the domain scenario, whose softmax over scores that are no log-probabilities would be nearly flat."""
    options = {"ncm": {"distance": "cosine"}, "ranpac": {"ridge": 1.0}}.get(name, {})
    best = learned(name, features, "class", **options).logits(features.test.x, 0).argmax(dim=1)
    method = learned(name, features, "domain", **options)
    assert torch.equal(method.logits(features.test.x, 1).argmax(dim=1), method.learner.position_of[best])


def test_positions_of_more_classes_have_no_advantage_by_their_number():
    learner = Learner(identity.build((3,)), HEADS["linear"](0.0), "domain", [(0, 1), (2, 3, 4)])
    scores = torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.2]])
    assert learner.as_class_logits(scores, 1, densities=False).tolist() == scores[:, 2:].tolist()
    assert learner.as_class_logits(scores, 1).argmax() == 0, "of log-probabilities the sum counts"


def test_a_position_that_a_task_lacks_does_not_hide_the_others():
    learner = Learner(identity.build((3,)), HEADS["linear"](0.0), "domain", [(0, 1, 2), (3, 4)])
    scores = torch.tensor([[-300.0, -200.0, 0.0, -300.0, -200.0]])
    assert learner.as_class_logits(scores, 1).diff().item() == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    "name, few, told", [("fecam", 1, "class 1 has 1 training sample"), ("slda", 2, "slda needs 2")]
)
def test_classes_with_one_sample_are_refused_where_a_covariance_is_needed(features, name, few, told):
    kept = torch.arange(len(features.train)) % 40 == 0
    kept[:40] |= few == 1
    data = Data(features.train.take(kept), features.test, features.classes)
    with pytest.raises(BadInput, match=told):
        learned(name, data)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_computed_is_computed_again_after_loading(features, name):
    one, two = learned(name, features), make_method(name, "class")
    before = one.logits(features.test.x, 0)
    two.predict(features.test.x, 0)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    torch.testing.assert_close(two.logits(features.test.x, 0), before, atol=0, rtol=0)


def test_ranpac_s_penalty_has_the_least_error_on_a_held_out_fifth(features):
    method = make_method("ranpac", "class")
    train_part = features.train.take(features.train.y < 2)
    state = method.stream.get_state()
    found = method._best_ridge(train_part)
    stream = torch.Generator()
    stream.set_state(state)
    order = torch.randperm(80, generator=stream)
    h, labels = method.projected(train_part.x.double())[order], F.one_hot(train_part.y, 6).double()[order]
    errors = {}
    for ridge in ranpac.RIDGES:
        weight = torch.linalg.solve(h[16:].T @ h[16:] + ridge * torch.eye(50), h[16:].T @ labels[16:])
        off = (h @ weight - labels).square().sum(dim=1)
        errors[ridge] = float(off[:16].sum()), float(off[16:].sum())
    least = [min(errors, key=lambda ridge: errors[ridge][k]) for k in (0, 1)]
    assert found == least[0] != least[1], "not that of the samples it was fitted to"
