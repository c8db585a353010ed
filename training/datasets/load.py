"""One way in to every data set: `load`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ddnn.errors import DataError
from training.datasets import layouts
from training.datasets.base import MultiCameraSet, describe
from training.datasets.folders import read_folder
from training.datasets.generated import built_in_path, generate
from training.datasets.recorded import read_recorded
from training.recorded.views import TABLE

EXPECTED = """Data sets are read in these layouts:
  generated              the built-in one, by this name
  .npz  X, y             X uint8 [n, cameras, H, W, 3] or [n, cameras, 3, H, W], y [n]; optional
                         classes, train and test (indices), present and seen [n, cameras]
  .npz  X, y, y_cam, train_<split>, test_<split>
                         the same with named splits; y_cam [n, cameras] is -1 where not seen
  .npz  X, y             the authors' MVMC.npz: X float [n, 6, 3, 32, 32], y [n, 6] with 3 or -1
                         where not seen
  .npz  X_train, y_train, X_test, y_test
                         single pictures [n, H, W] or [n, H, W, 3], cut into a grid of cameras
  folder                 train|test/<class>/<sample>/<camera>.png
  folder                 of `ddnn collect` and `ddnn label`"""


def load(
    source: str | Path,
    split: str | None = None,
    seed: int = 0,
    grid: tuple[int, int] = (3, 2),
) -> MultiCameraSet:
    """Read a data set of any known layout.

    Args:
        source: `generated`, a .npz file or a folder.
        split: which split, where the file has several named ones; else it must be None.
        seed: of the split, where the file has none.
        grid: (columns, rows) of cameras that single pictures are cut into.

    Raises:
        DataError: not there, of another layout, or inconsistent; it shows the layouts.
    """
    if str(source) == "generated":
        _no_split(split, "the generated data set")
        path = built_in_path()
        return _read_npz(path, None, seed, grid) if path.exists() else generate()
    path = Path(source)
    if path.is_dir():
        _no_split(split, str(path))
        return read_recorded(path) if (path / TABLE).is_file() else read_folder(path)
    if not path.exists():
        raise DataError(f"there is no data set at {path}\n{EXPECTED}")
    return _read_npz(path, split, seed, grid)


def _read_npz(path: Path, split: str | None, seed: int, grid: tuple[int, int]) -> MultiCameraSet:
    try:
        # Pickled arrays could run code; no layout needs them.
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}\n{EXPECTED}") from error
    name = path.stem
    if layouts.fits_splits(arrays):
        return layouts.read_splits(arrays, name, split)
    _no_split(split, str(path))
    if layouts.fits_single(arrays):
        return layouts.read_single(arrays, name, grid)
    if layouts.fits_mvmc(arrays):
        return layouts.read_mvmc(arrays, name, seed)
    if layouts.fits_plain(arrays):
        return layouts.read_plain(arrays, name, seed)
    found = ", ".join(f"{key}: {describe(array)}" for key, array in sorted(arrays.items()))
    raise DataError(f"{path} has another layout than those known; it holds {found}\n{EXPECTED}")


def _no_split(split: str | None, what: str) -> None:
    if split is not None:
        raise DataError(f"{what} has no named splits; leave out --split {split}")
