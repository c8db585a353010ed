"""What a training run leaves behind beside its bundle: options, metrics, curves, checkpoint."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from ddnn.errors import DdnnError
from training.train import EpochResult

CHECKPOINT = "checkpoint.pt"


def new_run_folder(parent: Path, name: str) -> Path:
    """Make the folder `<name>-<time>` in `parent`.

    Raises:
        DdnnError: it cannot be made.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    stamp = f"{safe}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 100):
        path = Path(parent) / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise DdnnError(f"cannot make the run folder {path}: {error}") from error
    raise DdnnError(f"too many runs at {stamp}")


class RunFolder:
    """A run's folder: options.json, command.json, metrics.jsonl, curves.png, checkpoint.pt.

    Args:
        path: an existing folder; metrics of an earlier start are dropped, since a training that
            goes on reports its earlier epochs again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._history: list[EpochResult] = []
        (path / "metrics.jsonl").unlink(missing_ok=True)

    def write(self, name: str, value: object) -> None:
        """Write `value` as JSON to a file of that name."""
        (self.path / name).write_text(json.dumps(value, indent=1) + "\n")

    def on_epoch(self, result: EpochResult) -> None:
        """Append one line to metrics.jsonl."""
        self._history.append(result)
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(result._asdict()) + "\n")

    def draw_curves(self) -> None:
        """Write curves.png: loss, and accuracy on the validation samples by exit."""
        if not self._history:
            return
        import matplotlib  # slow to import: only when there is something to draw

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
        epochs = [result.epoch for result in self._history]
        left.plot(epochs, [result.loss for result in self._history])
        left.set(xlabel="epoch", ylabel="joint loss, fitting samples")
        for name in self._history[0].exits:
            line = right.plot(epochs, [r.exits[name] for r in self._history], label=name)[0]
            if self._history[0].lost_camera:
                lost = [r.lost_camera[name] for r in self._history]
                right.plot(epochs, lost, ":", color=line.get_color(), label=f"{name}, one lost")
        right.set(xlabel="epoch", ylabel="accuracy, validation samples", ylim=(None, 1.01))
        right.legend()
        figure.savefig(self.path / "curves.png", dpi=100)
        pyplot.close(figure)
