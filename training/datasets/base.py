"""The one form in which every data set reaches the training code."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import DataError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)


def _check_bools(name: str, array: NDArray, shape: tuple[int, int]) -> None:
    _check(
        isinstance(array, np.ndarray) and array.dtype == bool and array.shape == shape,
        f"{name} must be bool {shape}, is {describe(array)}",
    )


def describe(array: object) -> str:
    """An array's type and shape in words, such as "uint8 (851, 6, 32, 32, 3)"."""
    if isinstance(array, np.ndarray):
        return f"{array.dtype} {array.shape}"
    return type(array).__name__


@dataclass(frozen=True)
class MultiCameraSet:
    """Samples of one object each, seen by D cameras at once.

    images: (N, D, H, W, C) uint8; labels: (N,) int64, index into `classes`;
    seen: (N, D) bool, the object is in that view; present: (N, D) bool, the camera delivered a
    picture (False where the view is blank, all zero; then the object is not seen either);
    train, test: int64 indices of disjoint sets of samples; validation: those of `train` that choose
    model and thresholds, or None: they are drawn at random. Pictures taken one after the other are
    nearly the same: of a recording they must be other times.

    Raises DataError when the parts do not fit together.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seen: NDArray[np.bool_]
    present: NDArray[np.bool_]
    classes: tuple[str, ...]
    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    validation: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        _check(
            isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 5,
            f"images must be uint8 (samples, cameras, H, W, channels), are {describe(images)}",
        )
        _check(min(images.shape) > 0, f"images must not be empty, are {describe(images)}")
        n, d = images.shape[:2]
        _check(
            isinstance(labels, np.ndarray) and labels.dtype == np.int64 and labels.shape == (n,),
            f"labels must be int64 ({n},), are {describe(labels)}",
        )
        _check(
            isinstance(self.classes, tuple)
            and all(isinstance(c, str) for c in self.classes)
            and len(set(self.classes)) == len(self.classes) >= 2,
            f"classes must be two or more different names, are {self.classes!r}",
        )
        _check(
            labels.min() >= 0 and labels.max() < len(self.classes),
            f"labels must be 0..{len(self.classes) - 1} for {len(self.classes)} classes, "
            f"are {labels.min()}..{labels.max()}",
        )
        _check_bools("seen", self.seen, (n, d))
        _check_bools("present", self.present, (n, d))
        _check(not (self.seen & ~self.present).any(), "a view that is not present cannot be seen")
        _check(
            not images[~self.present].any(), "a view that is not present must be blank (all zero)"
        )
        for which, index in (("train", self.train), ("test", self.test)):
            _check(
                isinstance(index, np.ndarray) and index.dtype == np.int64 and index.ndim == 1,
                f"{which} must be a flat int64 index array, is {describe(index)}",
            )
            _check(
                index.size == 0 or (index.min() >= 0 and index.max() < n),
                f"{which} must index {n} samples (0..{n - 1})",
            )
            _check(np.unique(index).size == index.size, f"{which} names a sample twice")
        shared = np.intersect1d(self.train, self.test)
        _check(
            shared.size == 0,
            f"train and test share {shared.size} samples (first: {shared[:3].tolist()})",
        )
        if self.validation is not None:
            _check(
                isinstance(self.validation, np.ndarray)
                and self.validation.dtype == np.int64
                and np.isin(self.validation, self.train).all()
                and 0 < np.unique(self.validation).size == self.validation.size < self.train.size,
                "validation must be an int64 index of some samples of train, each once",
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def cameras(self) -> int:
        """The number of cameras D."""
        return self.images.shape[1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one view."""
        return self.images.shape[2:]

    def subset(self, index: NDArray[np.integer], name: str | None = None) -> "MultiCameraSet":
        """The samples `index` (in that order, each at most once), with the splits renumbered.

        A sample keeps its split; samples in neither stay in neither. Raises DataError for an
        index out of range or named twice.
        """
        index = np.asarray(index, np.int64)
        _check(
            index.ndim == 1 and index.size > 0 and index.min() >= 0 and index.max() < len(self),
            f"a subset needs indices within 0..{len(self) - 1}",
        )
        _check(np.unique(index).size == index.size, "a subset names a sample twice")
        train = np.flatnonzero(np.isin(index, self.train)).astype(np.int64)
        validation = None
        if self.validation is not None:
            validation = np.flatnonzero(np.isin(index, self.validation)).astype(np.int64)
            # Without one of the two there is nothing to keep apart.
            validation = validation if 0 < validation.size < train.size else None
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            seen=self.seen[index],
            present=self.present[index],
            name=self.name if name is None else name,
            train=train,
            test=np.flatnonzero(np.isin(index, self.test)).astype(np.int64),
            validation=validation,
        )

    def select_cameras(self, cameras: list[int]) -> "MultiCameraSet":
        """The same samples with only the given cameras, in that order."""
        _check(
            len(cameras) > 0
            and len(set(cameras)) == len(cameras)
            and all(0 <= c < self.cameras for c in cameras),
            f"cameras must be different numbers within 0..{self.cameras - 1}, are {cameras}",
        )
        return replace(
            self,
            images=self.images[:, cameras],
            seen=self.seen[:, cameras],
            present=self.present[:, cameras],
        )

    def save(self, path: str | Path) -> None:
        """Write the plain .npz form, which `training.datasets.load` reads back as it is."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                X=self.images,
                y=self.labels.astype(np.int32),
                seen=self.seen,
                present=self.present,
                classes=np.array(self.classes),
                name=np.array(self.name),
                train=self.train.astype(np.int32),
                test=self.test.astype(np.int32),
                **({} if self.validation is None else {"validation": self.validation}),
            )


def stratified_split(
    labels: NDArray[np.integer], index: NDArray[np.integer], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split samples in two by label: (rest, part), each sorted.

    labels: (N,) of all samples; index: the samples to split; share: how much of every class goes
    to `part`, 0 < share < 1, rounded per class; a class of one sample stays in `rest`, a class
    of more keeps at least one on each side. Raises DataError for an impossible share.
    """
    _check(0.0 < share < 1.0, f"the share to split off must be between 0 and 1, is {share}")
    index = np.asarray(index, np.int64)
    rng = np.random.default_rng(seed)
    part: list[NDArray[np.int64]] = []
    for label in np.unique(labels[index]):
        members = rng.permutation(index[labels[index] == label])
        count = min(max(1, round(share * members.size)), members.size - 1)
        part.append(members[:count])
    chosen = np.sort(np.concatenate(part)) if part else np.empty(0, np.int64)
    return np.sort(np.setdiff1d(index, chosen)), chosen


def split_validation(
    data: MultiCameraSet, share: float = 0.15, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the training indices into (fit, validation); test untouched.

    As the data set says, and else stratified by label.
    """
    if data.validation is not None:
        return np.setdiff1d(data.train, data.validation), np.sort(data.validation)
    return stratified_split(data.labels, data.train, share, seed)


def evenly(index: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """`index`, or of a longer one `most` entries at even distances."""
    if len(index) <= most:
        return index
    return index[np.linspace(0, len(index) - 1, most).astype(int)]
