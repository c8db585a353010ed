"""Several processes train as one would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from ddnn.errors import ConfigError  # noqa: E402
from ddnn.store import read_folder  # noqa: E402
from tests.export.test_export import options_for, tiny_set  # noqa: E402
from training import ranks  # noqa: E402
from training.augment import Draws  # noqa: E402
from training.network import Network  # noqa: E402
from training.options import TrainOptions  # noqa: E402
from training.train import samples_of, step_loss  # noqa: E402

DATA = tiny_set()
OPTIONS = TrainOptions(
    batch=8, distillation=0.1, flip=True, recolour=0.5, colour=0.1, local_masks=2
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
ROOT = Path(__file__).parents[2]


def first_step(samples):
    """Loss, gradients and statistics after the first step of so many samples, by this process."""
    torch.manual_seed(0)
    network = Network(options_for(DATA)).train()
    with torch.no_grad():
        # Whole sums are often exactly their mean, and the last bit of a mean then decides a sign.
        for name, value in network.named_parameters():
            if name.endswith("beta"):
                value.uniform_(-0.3, 0.3)
    random = torch.Generator().manual_seed(0)
    index = torch.arange(samples)[ranks.own()]
    batch = samples_of(DATA, DATA.train).batch(index)
    loss = step_loss(network, batch, OPTIONS, Draws(random, samples, ranks.own()))
    loss.backward()
    ranks.sum_gradients(network.parameters())
    found = {name: p.grad for name, p in network.named_parameters()}
    found |= {f"buffer {name}": b for name, b in network.named_buffers()}
    return found | {"loss": ranks.summed(loss.detach().clone())}


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        env=ENVIRONMENT | environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(processes, *arguments):
    return start(
        "torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m", *arguments
    )


@pytest.mark.live
def test_first_step_is_that_of_one_process(tmp_path):
    out = tmp_path / "steps.pt"
    process = torchrun(3, "tests.unit.test_training_ranks", out)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    for samples, together in torch.load(out).items():
        alone = first_step(samples)
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            close = torch.allclose(together[name], value, atol=1e-5, rtol=1e-5)
            assert close, f"{name} of {samples} samples"


@pytest.mark.live
def test_whole_run_writes_one_bundle(tmp_path):
    DATA.save(tmp_path / "tiny.npz")
    run = ("--data", tmp_path / "tiny.npz", "--out", tmp_path / "bundle", "--epochs", 2)
    small = ("--batch", 10, "--filters", 2, "--edge-filters", 3, "--cloud-filters", 3)
    process = torchrun(2, "ddnn", "train", *run, *small, "--run-dir", tmp_path / "runs")
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert text.count("exported and checked") == 1
    assert read_folder(tmp_path / "bundle").manifest.accuracy.samples == 12
    (folder,) = (tmp_path / "runs").iterdir()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.live
def test_process_that_dies_ends_the_others_with_a_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    both = [
        start(
            "tests.unit.test_training_ranks", tmp_path / "out", "die", TORCHELASTIC_RUN_ID="test",
            RANK=str(rank), **address,
        )
        for rank in range(2)
    ]  # fmt: skip
    texts = [process.communicate(timeout=120)[1] for process in both]
    assert both[1].returncode == 3
    assert both[0].returncode == 1
    assert "DdnnError: process 0 stops: another process of this training has ended" in texts[0]


def test_one_process_needs_no_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with ranks.together(torch.device("cpu")):
        assert (ranks.rank(), ranks.world()) == (0, 1)
        x = torch.ones(3)
        assert ranks.summed(x) is x


def test_device_is_the_processor_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ranks.device_of("auto") == ranks.device_of("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no usable GPU"):
        ranks.device_of("cuda")


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ranks.device_of("auto") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="more processes"):
        ranks.device_of("auto")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_a_gpu_is_the_same_twice():
    from training.train import train

    options = TrainOptions(epochs=2, batch=8)
    states = [
        train(DATA, options_for(DATA), options, device=torch.device("cuda"))[0].state_dict()
        for _ in range(2)
    ]
    assert all(states[0][name].equal(value) for name, value in states[1].items())


def work(path, what):
    """What each process of these tests does."""
    torch.set_num_threads(1)
    with ranks.together(torch.device("cpu")):
        if what == ["die"] and ranks.rank() == 1:
            os._exit(3)
        # Of 2 samples the third process has none, and nothing to do but to take part.
        steps = {samples: first_step(samples) for samples in (32, 7, 2)}
        if ranks.rank() == 0:
            torch.save(steps, path)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2:])
