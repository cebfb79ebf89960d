"""Masks against truth: one confusion matrix over a whole set, and what is read from it.

IoU of a class is its intersection over its union, summed over all images first; a class that is neither in the truth
nor predicted has none and does not count; one that is predicted but never there counts as 0.  mIoU is the mean over
classes.
"""

import numpy as np

IGNORE = 255


def confusion(truth, prediction, classes, ignore=IGNORE):
    """int64 [K, K]: pixels of true class (row) that were given a class (column)."""
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"confusion: truth is {truth.shape}, prediction is {prediction.shape}")
    kept = truth != ignore
    truth, prediction = truth[kept].astype(np.int64), prediction[kept].astype(np.int64)
    for what, values in (("truth", truth), ("prediction", prediction)):
        if len(values) and not (0 <= values.min() and values.max() < classes):
            found = f"{values.min()} to {values.max()}"
            raise ValueError(f"confusion: {what} holds classes {found}; expected 0 to {classes - 1}")
    return np.bincount(truth * classes + prediction, minlength=classes**2).reshape(classes, classes)


def iou(matrix):
    """float64 [K]: intersection over union of each class; NaN where the class occurs nowhere."""
    matrix = matrix.astype(np.float64)
    both = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - both
    return np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)


def mean_iou(ious):
    """Mean over the classes that occur; NaN when none does."""
    ious = np.asarray(ious)[~np.isnan(ious)]
    return float(ious.mean()) if len(ious) else float("nan")


def pixel_accuracy(matrix):
    return float(np.diag(matrix).sum() / matrix.sum()) if matrix.sum() else float("nan")


def mean_accuracy(matrix):
    """Mean over the classes that are there of the share of their pixels that were given to them."""
    there = matrix.sum(1)
    return mean_iou(np.divide(np.diag(matrix), there, out=np.full(len(there), np.nan), where=there > 0))
