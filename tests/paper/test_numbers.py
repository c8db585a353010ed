"""The parts of the report: the paper's formulas and figures, plans, tables, options."""

import pytest

pytest.importorskip("torch")

from ddnn.errors import ConfigError
from tests.export.test_export import options_for, tiny_set
from training.options import TrainOptions
from training.paper import figures, plots
from training.paper.bench import feature_bits, paper_memory_bits, weight_bits
from training.paper.cli import read_changes
from training.paper.plan import QUICK_TABLES, TABLES, Plan
from training.paper.run import Data, Run
from training.paper.schedule import minutes
from training.paper.table import Column, Number, Table
from training.traffic import paper_bytes


def mvmc_like(**changes):
    return options_for(tiny_set(cameras=6, image=(32, 32, 3)), **changes)


def test_formula_gives_the_papers_own_traffic():
    for row in figures.rows("threshold_sweep"):
        got = paper_bytes(3, row["local_share"], feature_bits(mvmc_like(device_filters=(4,))))
        assert got == pytest.approx(row["paper_bytes"], abs=0.06)
    for row in figures.rows("filters"):
        bits = feature_bits(mvmc_like(device_filters=(4, row["filters"])))
        assert paper_bytes(3, row["local_share"], bits) == pytest.approx(
            row["paper_bytes"], abs=0.06
        )


def test_memory_is_counted_as_the_paper_counts_it():
    for row in figures.rows("filters"):
        f = row["filters"]
        network = mvmc_like(device_filters=(4, f))
        assert paper_memory_bits(network) == row["memory_bits"] == 204 + 228 * f


def test_weights_by_hand():
    # 4 filters of 3 x 3 x 3, an exit of 4 x 16 x 16 inputs for 3 classes.
    assert weight_bits(mvmc_like(device_filters=(4,))) == 4 * 27 + 4 * 256 * 3
    odd = options_for(tiny_set(image=(5, 3, 1)), device_filters=(2,))
    assert feature_bits(odd) == 2 * 3 * 2


def test_authors_runs_are_found_by_the_data_sets_name():
    assert figures.authors_float("epfl_mvmc object")["cloud"] == 0.9574
    assert figures.authors_float("mnist") is not None
    assert figures.authors_float("holiday pictures") is None


@pytest.mark.parametrize("name", figures.NAMES)
def test_every_figure_says_where_it_is_from(name):
    assert figures.source(name)
    assert figures.rows(name)


def plan(quick=False, seeds=(0, 1), cameras=6):
    return Plan(tiny_set(cameras=cameras), {}, TrainOptions(epochs=3), seeds, quick)


def test_full_plan_has_every_experiment_once_for_each_seed():
    full = plan()
    assert list(full.filters()) == [1, 2, 4, 8]
    pairs = [pair for pair in full.aggregation() if set(pair.split("-")) <= {"MP", "AP", "CC"}]
    assert len(pairs) == 9
    assert list(full.aggregation())[9:] == ["GA-CC", "GC-CC", "HC-CC"]
    assert list(full.local_exits()) == ["MP", "AP", "CC", "GA", "GC", "HC"]
    assert list(full.adding(range(6))) == [1, 2, 3, 4, 5, 6]
    assert sorted(full.retrained(range(6))) == list(range(6))
    runs = full.all(TABLES, range(6))
    assert len(runs) == len(set(runs))
    assert {run.training.seed for run in runs} == {0, 1}
    assert runs[:2] == full.base()


def test_cameras_are_added_from_the_worst_to_the_best():
    order = [3, 0, 5, 1, 2, 4]
    added = plan().adding(order)
    assert added[1][0].cameras == (3,)
    assert added[3][0].cameras == (0, 3, 5)
    assert added[6] == plan().base()
    # Trained anew without the best one is the same network as the five worst.
    assert plan().retrained(order)[4] == added[5]


def test_quick_plan_is_small():
    assert len(plan(quick=True, seeds=(0,)).all(QUICK_TABLES, range(6))) <= 16


@pytest.mark.parametrize("cameras", [1, 2])
def test_few_cameras_leave_out_what_needs_more(cameras):
    few = plan(cameras=cameras)
    assert few.all(TABLES, range(cameras))
    assert ("f-devices-edges-cloud" in few.shapes(range(cameras))) == (cameras > 1)


def test_key_changes_with_everything_that_a_bundle_depends_on():
    run, other_seed = plan().base()
    keys = {
        run.key("a"),
        run.key("b"),
        other_seed.key("a"),
        plan().runs(device_filters=(8,))[0].key("a"),
        Run((1, 0, 2, 3, 4, 5), run.network, run.training).key("a"),
    }
    assert len(keys) == 5
    assert run.key("a") == plan().base()[0].key("a")


def test_limits_keep_splits_apart_and_every_class(tmp_path):
    path = tmp_path / "tiny.npz"
    tiny_set(samples=200).save(path)
    samples = Data(str(path), None, 60, 20).read()
    assert 55 <= len(samples.train) <= 65
    assert 17 <= len(samples.test) <= 23
    assert set(samples.labels[samples.test]) == {0, 1, 2}


def test_changes_are_read_as_the_options_they_change():
    network, training = read_changes(("edge_filters=8,16", "flip=true", "batch=16"), {"noise": 2.0})
    assert network == {"edge_filters": (8, 16)}
    assert (training.flip, training.batch, training.noise) == (True, 16, 2.0)


@pytest.mark.parametrize("change", ["speed=1", "seed=3", "flip=maybe", "batch=many", "batch"])
def test_change_of_nothing_known_is_refused(change):
    with pytest.raises(ConfigError, match="--set"):
        read_changes((change,), {})


def test_table_shows_mean_and_spread_and_hides_empty_columns():
    table = Table(
        "t",
        "T",
        "",
        [
            Column("x", "x"),
            Column("a", "accuracy", "%"),
            Column("b", "size", "B"),
            Column("p", "p"),
        ],
        [
            {"x": 1, "a": Number.of([0.9, 1.0]), "b": Number.of([1.25])},
            {"x": "two", "a": None, "b": 3.0, "p": None},
        ],
    )
    assert table.markdown().splitlines() == [
        "| x | accuracy (%) | size (B) |",
        "|---|---|---|",
        "| 1 | 95.0 ± 7.1 | 1.2 |",
        "| two | – | 3.0 |",
    ]
    first = table.as_json()["rows"][0]
    assert first["a"] == {"mean": 0.95, "spread": 0.070711, "values": [0.9, 1.0]}
    assert first["b"]["spread"] is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (100, "2 min"), (3600, "60 min"), (6000, "1 h 40 min")]
)
def test_time_left_in_words(seconds, text):
    assert minutes(seconds) == text


def test_every_join_has_a_line_in_the_plot_of_local_exits():
    from matplotlib import pyplot

    joins = [f"join {k}" for k in range(9)]  # more than there are markers
    columns = [Column("missing", "missing"), *(Column(name, name, "%") for name in joins)]
    rows = [{"missing": k} | {name: Number.of([0.9, 0.8]) for name in joins} for k in range(3)]
    figure = plots.PAINTERS["local"](Table("local", "", "", columns, rows), pyplot)
    assert [line.get_label() for line in figure.axes[0].get_lines()] == joins
    pyplot.close(figure)
