"""Readers of the .npz layouts: arrays of a file -> MultiCameraSet.

Each reader first says whether the keys and shapes are its own (`fits_...`), so that a file of
another layout gets one error that shows all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import DataError
from training.datasets.base import MultiCameraSet, stratified_split

Arrays = Mapping[str, NDArray]
TEST_SHARE = 0.2
MVMC_CLASSES = ("car", "bus", "person")
GRID_PAD_PX = 2


def _present(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N, D): views that are not blank."""
    return images.any(axis=(2, 3, 4))


def _channels_last(images: NDArray) -> NDArray:
    """(N, D, 3, H, W) -> (N, D, H, W, 3); what has its channels last stays as it is."""
    if images.shape[-1] not in (1, 3, 4) and images.shape[2] in (1, 3, 4):
        return np.moveaxis(images, 2, -1)
    return images


def _classes(arrays: Arrays, labels: NDArray) -> tuple[str, ...]:
    if "classes" in arrays:
        return tuple(str(name) for name in arrays["classes"])
    return tuple(f"class {label}" for label in range(int(labels.max()) + 1))


def _whole(labels: NDArray, name: str) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iuf" or not np.array_equal(labels, np.floor(labels)):
        raise DataError(f"{name} must hold whole numbers, is {labels.dtype}")
    return labels.astype(np.int64)


def fits_splits(arrays: Arrays) -> bool:
    """Whether the file has `X`, `y` and at least one `train_<split>`, as epfl_mvmc.npz has."""
    return {"X", "y"} <= set(arrays) and any(key.startswith("train_") for key in arrays)


def read_splits(arrays: Arrays, name: str, split: str | None) -> MultiCameraSet:
    """X uint8 (N, D, H, W, C), y (N,), y_cam (N, D) with -1 where the object is not seen, and
    index arrays train_<split>, test_<split>; split None: the first one in the file.

    Raises DataError when the split is not there.
    """
    splits = [key.removeprefix("train_") for key in arrays if key.startswith("train_")]
    split = split or splits[0]
    if split not in splits or f"test_{split}" not in arrays:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
    images = _channels_last(arrays["X"])
    labels = _whole(arrays["y"], "y")
    present = _present(images)
    seen = arrays["y_cam"] >= 0 if "y_cam" in arrays else present
    return MultiCameraSet(
        images=np.ascontiguousarray(images),
        labels=labels,
        seen=seen & present,
        present=present,
        classes=_classes(arrays, labels),
        name=f"{name} {split}",
        train=arrays[f"train_{split}"].astype(np.int64),
        test=arrays[f"test_{split}"].astype(np.int64),
    )


def fits_mvmc(arrays: Arrays) -> bool:
    """Whether this is the authors' MVMC.npz: float views and one label for each view."""
    if not {"X", "y"} <= set(arrays):
        return False
    images, labels = arrays["X"], arrays["y"]
    return images.ndim == 5 and images.dtype.kind == "f" and labels.shape == images.shape[:2]


def read_mvmc(arrays: Arrays, name: str, seed: int) -> MultiCameraSet:
    """X float (N, D, 3, H, W), y (N, D) with 3 or -1 where the object is not seen.

    As in the authors' code every view is divided by its own largest value, the label of a sample
    is the largest of its views', and 80 % of a permutation (here of our own seed) are for
    training. Raises DataError for a sample that no camera sees.
    """
    views = np.moveaxis(arrays["X"].astype(np.float32), 2, -1)
    per_view = _whole(arrays["y"], "y")
    per_view = np.where(per_view == 3, -1, per_view)
    labels = per_view.max(axis=1)
    if (labels < 0).any():
        raise DataError(f"{name}: sample {int(np.argmin(labels))} is seen by no camera")
    largest = np.maximum(views.max(axis=(2, 3, 4), keepdims=True), 1e-9)
    images = np.round(np.clip(views / largest, 0, 1) * 255).astype(np.uint8)
    images[per_view < 0] = 0
    order = np.random.default_rng(seed).permutation(len(labels))
    train = int(len(labels) * (1 - TEST_SHARE))  # 680 of 851, as in the paper
    return MultiCameraSet(
        images=images,
        labels=labels,
        seen=(per_view >= 0) & _present(images),
        present=_present(images),
        classes=MVMC_CLASSES[: int(labels.max()) + 1],
        name=name,
        train=np.sort(order[:train]).astype(np.int64),
        test=np.sort(order[train:]).astype(np.int64),
    )


def fits_plain(arrays: Arrays) -> bool:
    """Whether the file has `X` with five dimensions and `y` with one."""
    if not {"X", "y"} <= set(arrays):
        return False
    return arrays["X"].ndim == 5 and arrays["y"].shape == arrays["X"].shape[:1]


def read_plain(arrays: Arrays, name: str, seed: int) -> MultiCameraSet:
    """X uint8 (N, D, H, W, C) or (N, D, C, H, W), y (N,); optional classes, seen, present (N, D),
    name, train, test and validation; without train and test, a stratified 80/20 split by the seed.
    """
    images = np.ascontiguousarray(_channels_last(arrays["X"]))
    labels = _whole(arrays["y"], "y")
    present = arrays.get("present", _present(images))
    if "train" in arrays and "test" in arrays:
        train, test = (arrays[key].astype(np.int64) for key in ("train", "test"))
    else:
        train, test = stratified_split(labels, np.arange(len(labels)), TEST_SHARE, seed)
    return MultiCameraSet(
        images=images,
        labels=labels,
        seen=arrays.get("seen", present),
        present=present,
        classes=_classes(arrays, labels),
        name=str(arrays["name"]) if "name" in arrays else name,
        train=train,
        test=test,
        validation=arrays["validation"].astype(np.int64) if "validation" in arrays else None,
    )


def fits_single(arrays: Arrays) -> bool:
    """Whether this is a single-image set in two parts, as MNIST or CIFAR come."""
    return {"X_train", "y_train", "X_test", "y_test"} <= set(arrays)


def read_single(arrays: Arrays, name: str, grid: tuple[int, int]) -> MultiCameraSet:
    """X_train, X_test uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), cut into `grid` = (columns,
    rows) cameras: the authors' way to make six cameras of one picture.

    A picture of 28 x 28 is first padded by 2 to 32 x 32. Sides that do not divide lose their last
    pixels. Camera d = rows * column + row: down the first column, then the next. Every camera is
    present, also where its part of the picture is empty.
    """
    parts = [np.asarray(arrays[key]) for key in ("X_train", "X_test")]
    if any(part.dtype != np.uint8 or part.ndim not in (3, 4) for part in parts):
        raise DataError(f"{name}: X_train and X_test must be uint8 pictures")
    images = np.concatenate(parts)
    if images.ndim == 3:
        images = images[..., None]
    elif images.shape[1] in (1, 3, 4) and images.shape[-1] not in (1, 3, 4):
        images = np.moveaxis(images, 1, -1)
    if images.shape[1:3] == (28, 28):
        pad = (GRID_PAD_PX, GRID_PAD_PX)
        images = np.pad(images, ((0, 0), pad, pad, (0, 0)))
    columns, rows = grid
    width, height = images.shape[2] // columns, images.shape[1] // rows
    if not (columns > 0 and rows > 0 and width and height):
        raise DataError(f"pictures of {images.shape[1:3]} cannot be cut into {columns} x {rows}")
    views = [
        images[:, r * height : (r + 1) * height, c * width : (c + 1) * width]
        for c in range(columns)
        for r in range(rows)
    ]
    labels = np.concatenate(
        [_whole(np.asarray(arrays[key]).reshape(-1), key) for key in ("y_train", "y_test")]
    )
    stacked = np.ascontiguousarray(np.stack(views, axis=1))
    everywhere = np.ones(stacked.shape[:2], bool)
    first = len(parts[0])
    return MultiCameraSet(
        images=stacked,
        labels=labels,
        seen=everywhere,
        present=everywhere.copy(),
        classes=_classes(arrays, labels),
        name=name,
        train=np.arange(first, dtype=np.int64),
        test=np.arange(first, len(labels), dtype=np.int64),
    )
