"""A training on disk after each epoch, so that it goes on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddnn.errors import DdnnError
from ddnn.store import replace_durably
from training.datasets.base import MultiCameraSet
from training.options import NetworkOptions, TrainOptions


def fingerprint(
    data: MultiCameraSet, network_options: NetworkOptions, options: TrainOptions
) -> str:
    """A hash of all that decides how a training goes on: its samples and its options."""
    sha = hashlib.sha256()
    for part in (data.images, data.labels, data.seen, data.present, data.train):
        sha.update(np.ascontiguousarray(part).data)
    if data.validation is not None:
        sha.update(np.ascontiguousarray(data.validation).data)
    sha.update(json.dumps([asdict(network_options), asdict(options)]).encode())
    return sha.hexdigest()


class Checkpoint:
    """The file that holds a training after its last whole epoch.

    It is replaced by an atomic rename: a process killed at any time leaves the epoch before or
    the new one, never half of it.

    Args:
        path: of the file; its folder exists.
        wanted: `fingerprint` of the training that may go on from it.
    """

    def __init__(self, path: Path, wanted: str) -> None:
        self.path = path
        self._wanted = wanted

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state`: tensors, numbers, text, and lists and dicts of them.

        Raises:
            DdnnError: it cannot be written; the one before stays.
        """
        buffer = io.BytesIO()
        torch.save({"training": self._wanted, "state": state}, buffer)
        try:
            replace_durably(self.path, buffer.getvalue())
        except OSError as error:
            raise DdnnError(f"cannot keep the checkpoint {self.path}: {error}") from error

    def load(self) -> dict[str, Any] | None:
        """What was saved last, or None if nothing was.

        Raises:
            DdnnError: it cannot be read, or is of another training.
        """
        try:
            # weights_only: a checkpoint is data, none of it is run.
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            training, state = found["training"], found["state"]
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as e:
            raise DdnnError(
                f"checkpoint {self.path} cannot be read: delete it to start again ({e})"
            ) from e
        if training != self._wanted:
            raise DdnnError(
                f"checkpoint {self.path} is of other samples or other options of network and "
                "training: go on with those it was begun with, or start a new training"
            )
        return dict(state)
