"""What a training run leaves behind beside its bundle: options, metrics, curves."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from ddnn.errors import DdnnError
from training.train import EpochResult


class RunFolder:
    """A folder `<name>-<time>` of its own: options.json, metrics.jsonl, curves.png.

    Raises:
        DdnnError: it cannot be made.
    """

    def __init__(self, parent: Path, name: str) -> None:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
        stamp = f"{safe}-{time.strftime('%Y%m%d-%H%M%S')}"
        self._history: list[EpochResult] = []
        for number in range(1, 100):
            self.path = Path(parent) / (stamp if number == 1 else f"{stamp}-{number}")
            try:
                self.path.mkdir(parents=True)
                return
            except FileExistsError:
                continue
            except OSError as error:
                raise DdnnError(f"cannot make the run folder {self.path}: {error}") from error
        raise DdnnError(f"too many runs at {stamp}")

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
