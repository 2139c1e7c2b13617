"""Pooled metrics: their values, errors and differences, against a jackknife and known errors."""

import numpy as np
import pytest

from evosearch.errors import InputError
from evosearch.space.mask import Mask
from evosearch.study.scores import NORMAL, ImageScores, Measure, Score, joined
from evosearch.study.scorestore import ScoreStore
from evosearch.tasks.segmentation import MEAN_IOU

MEAN = Measure(name="mean", pooled=lambda rows: float(np.nanmean(rows[:, 0])))
RATIO = Measure(name="ratio", pooled=lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()))


def scores(rows, measure):
    return ImageScores(losses=np.arange(len(rows)) / 10, metrics=np.asarray(rows), measure=measure)


def overlaps(seed, images=80, classes=4):
    """Returns intersections and unions whose sizes and shares differ from image to image."""
    rng = np.random.default_rng(seed)
    either = rng.integers(5, 60, (images, classes)).astype(float)
    both = np.floor(either * rng.beta(4, 2, (images, classes)))
    return np.concatenate([both, either], axis=1)


def test_a_pooled_score_by_hand():
    found = scores([[1.0, 2.0], [1.0, 6.0]], RATIO).score
    assert (found.accuracy, found.metric, found.pooled) == (0.25, "ratio", True)
    assert (found.loss, found.images) == (0.05, 2)
    # A choice of two has the first twice, each once, or the second twice: 1/2, 1/4 (half of the
    # time) or 1/6.
    assert found.accuracy_se == pytest.approx(np.std([1 / 2, 1 / 4, 1 / 4, 1 / 6]), rel=0.1)
    low, high = found.accuracy_interval
    assert low == max(0.0, 0.25 - NORMAL * found.accuracy_se)
    assert high == pytest.approx(0.25 + NORMAL * found.accuracy_se)
    assert str(found).startswith("loss 0.050 ±0.050, ratio 25.00 (")


def test_the_bootstrap_knows_the_error_of_a_mean():
    values = np.random.default_rng(0).random((150, 1))
    expected = values.std(ddof=1) / 150**0.5
    assert scores(values, MEAN).score.accuracy_se == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("seed", range(3))
def test_the_bootstrap_agrees_with_the_jackknife(seed):
    rows = overlaps(seed)
    found = scores(rows, MEAN_IOU).score
    left_out = [MEAN_IOU.value(np.delete(rows, image, axis=0)) for image in range(len(rows))]
    jackknife = np.sqrt((len(rows) - 1) * np.var(left_out))
    assert found.accuracy_se == pytest.approx(jackknife, rel=0.15)


def test_two_networks_are_compared_on_the_same_choices():
    rows = overlaps(0)
    worse = rows.copy()
    worse[:, :4] = np.maximum(rows[:, :4] - 1, 0)
    above = scores(rows, MEAN_IOU).metric_above(scores(worse, MEAN_IOU))
    assert above.mean == MEAN_IOU.value(rows) - MEAN_IOU.value(worse) > 0
    # What is hard for both cancels: apart from each other their errors are far larger.
    assert 0 < above.error < 0.2 * scores(rows, MEAN_IOU).score.accuracy_se
    same = scores(rows, MEAN_IOU).metric_above(scores(rows, MEAN_IOU))
    assert (same.mean, same.error) == (0.0, 0.0)


def test_the_difference_of_means_is_taken_image_by_image():
    first, second = np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])
    above = ImageScores(losses=first, metrics=first).metric_above(
        ImageScores(losses=second, metrics=second)
    )
    assert above.mean == pytest.approx(1 / 3)
    assert above.error == pytest.approx(np.std([0, 1, 0], ddof=1) / 3**0.5)


def test_rows_of_statistics_may_differ_in_length():
    rows = joined([np.ones((2, 1)), np.zeros((1, 3))])
    assert np.array_equal(rows[:2, 1:], np.full((2, 2), np.nan), equal_nan=True)
    assert MEAN.value(rows) == pytest.approx(2 / 3)
    whole = scores(rows, MEAN)
    assert whole.between(0, 2).then(whole.between(2, 3)).score == whole.score


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_pooled_value_outside_its_range_is_refused(value):
    measure = Measure(name="odd", pooled=lambda rows: value)
    with pytest.raises(InputError, match=r"\[task\] pooled: expected a value in \[0, 1\], got"):
        _ = scores(np.ones((3, 2)), measure).score


@pytest.mark.parametrize("numbers", [1, 3])
def test_statistics_are_stored_with_the_losses(tmp_path, numbers):
    rows = joined([np.random.default_rng(0).random((4, numbers)), np.ones((1, 1))])
    store, mask = ScoreStore(tmp_path, MEAN), Mask({"a": np.array([True])})
    store.put(mask, scores(rows, MEAN))
    found = store.get(mask)
    assert found is not None
    assert np.array_equal(found.metrics, rows, equal_nan=True)
    assert found.score == scores(rows, MEAN).score
    if numbers > 1:
        assert ScoreStore(tmp_path).get(mask) is None  # of a metric that is no mean


def test_scores_of_earlier_versions_are_accuracies():
    old = {"loss": 1.0, "loss_se": 0.1, "accuracy": 0.5, "accuracy_se": 0.05, "images": 100}
    found = Score(**old)
    assert (found.metric, found.pooled) == ("accuracy", False)
    assert found.accuracy_text == "50.00 (40.4 to 59.6)"
