"""The metric against matrices typed by hand and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from fastzss.evaluation.score import confusion, iou, mean_accuracy, mean_iou, pixel_accuracy

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, 255], [1, 1, 255, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1, 1], [0, 2, 0, 3], [1, 3, 0, 4]], np.uint8)
MATRIX = [
    [2, 1, 0, 0, 0],
    [0, 3, 0, 1, 0],
    [1, 0, 1, 0, 0],
    [0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],
]


def test_a_matrix_typed_by_hand():
    matrix = confusion(TRUTH, PREDICTION, 5)
    assert matrix.dtype == np.int64 and matrix.tolist() == MATRIX


def test_scores_typed_by_hand():
    """Class 3 is predicted and never there: 0, and counted.  Class 4 is predicted on ignored pixels only: nowhere."""
    found = iou(np.array(MATRIX))
    assert found[:4] == pytest.approx([2 / 4, 3 / 5, 1 / 2, 0])
    assert math.isnan(found[4])
    assert mean_iou(found) == pytest.approx((0.5 + 0.6 + 0.5 + 0) / 4)
    assert pixel_accuracy(np.array(MATRIX)) == pytest.approx(6 / 9)


def test_nothing_gives_nan_and_not_a_number_out_of_the_air():
    nothing = confusion(np.full((3, 5), 255, np.uint8), np.zeros((3, 5), np.uint8), 4)
    assert nothing.sum() == 0 and nothing.shape == (4, 4)
    assert np.isnan(iou(nothing)).all()
    assert math.isnan(mean_iou(iou(nothing))) and math.isnan(pixel_accuracy(nothing))
    assert confusion(np.empty((0, 3), np.uint8), np.empty((0, 3), np.uint8), 2).tolist() == [[0, 0], [0, 0]]


def test_what_was_predicted_on_ignored_pixels_does_not_matter():
    truth = np.array([0, 255, 1, 255])
    for junk in (0, 1, 255, -1, 10**9):
        assert confusion(truth, np.array([0, junk, 1, junk]), 2).tolist() == [[1, 0], [0, 1]]
    assert confusion(np.array([0, 7]), np.array([0, 9]), 2, ignore=7).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    "truth, prediction, message",
    [
        ([0, 5], [0, 1], "truth holds classes 0 to 5; expected 0 to 4"),
        ([0, -1], [0, 1], "truth holds classes -1 to 0"),
        ([0, 1], [2, 255], "prediction holds classes 2 to 255"),
        ([0, 1], [-3, 1], "prediction holds classes -3 to 1"),
        ([0, 1], [0, 1, 1], r"truth is \(2,\), prediction is \(3,\)"),
        ([[0, 1]], [0, 1], r"truth is \(1, 2\), prediction is \(2,\)"),
    ],
)
def test_classes_out_of_range_and_other_shapes_are_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(truth), np.array(prediction), 5)


def test_bytes_do_not_overflow():
    """Class 200 of 201, in uint8: 200 * 201 + 200 is far beyond a byte."""
    last = np.full((3, 3), 200, np.uint8)
    assert confusion(last, last, 201)[200, 200] == 9


@pytest.mark.parametrize("classes, pixels", [(2, 17), (7, 1001), (171, 5003)])
def test_random_masks_agree_with_torchmetrics(classes, pixels):
    random = np.random.default_rng(classes)
    matrix = np.zeros((classes, classes), np.int64)
    counted = MulticlassConfusionMatrix(classes, ignore_index=255)
    jaccard = MulticlassJaccardIndex(classes, average="macro", ignore_index=255)
    for _ in range(3):
        truth = random.integers(0, max(2, classes // 2), pixels)  # half of the classes are never there
        prediction = np.where(random.random(pixels) < 0.6, truth, random.integers(0, max(2, 3 * classes // 4), pixels))
        truth[random.random(pixels) < 0.1] = 255
        matrix += confusion(truth.astype(np.uint8), prediction.astype(np.uint8), classes)
        for metric in (counted, jaccard):
            metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    assert np.array_equal(matrix, counted.compute().numpy())
    assert mean_iou(iou(matrix)) == pytest.approx(float(jaccard.compute()), rel=1e-6)
    expected = counted.compute().double()
    expected = expected.diag() / (expected.sum(0) + expected.sum(1) - expected.diag())
    assert np.allclose(iou(matrix), expected.numpy(), rtol=1e-14, equal_nan=True)


def test_miou_is_that_of_torchmetrics_on_200_random_pairs():
    """Absent, predicted-only and ignored classes among them.  Its matrix is exact; its own division is in float32."""
    random = np.random.default_rng(0)
    for _ in range(200):
        classes, pixels = int(random.integers(2, 40)), int(random.integers(1, 400))
        there, given = (random.permutation(classes)[: random.integers(1, classes + 1)] for _ in range(2))
        truth, prediction = random.choice(there, pixels), random.choice(given, pixels)
        truth[random.random(pixels) < 0.2] = 255
        counted = MulticlassConfusionMatrix(classes, ignore_index=255)
        counted.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        expected = counted.compute().double()
        union = expected.sum(0) + expected.sum(1) - expected.diag()
        expected = (expected.diag() / union)[union > 0].mean().item()
        found = mean_iou(iou(confusion(truth.astype(np.uint8), prediction.astype(np.uint8), classes)))
        assert math.isnan(found) and math.isnan(expected) or abs(found - expected) < 1e-12


def test_mean_accuracy_is_over_the_classes_that_are_there():
    assert mean_accuracy(np.array(MATRIX)) == pytest.approx((2 / 3 + 3 / 4 + 1 / 2) / 3)
