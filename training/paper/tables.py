"""Every table of the report, measured on the test split with thresholds from validation samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from training.paper import tables_cameras, tables_network
from training.paper.bench import Bench
from training.paper.plan import TableName
from training.paper.table import Table

_MAKERS: dict[TableName, tuple[Callable[[Bench], Table], ...]] = {
    "sweep": (tables_network.sweep,),
    "filters": (tables_network.filters,),
    "layout": (tables_network.layout,),
    "aggregation": (tables_network.aggregation,),
    "local": (tables_cameras.local_exits,),
    "cameras": (tables_cameras.cameras,),
    "adding": (tables_cameras.adding,),
    "missing": (tables_cameras.missing_one, tables_cameras.missing_many),
    "shapes": (tables_network.shapes,),
}


def make(bench: Bench, names: Sequence[TableName]) -> list[Table]:
    """The summary and the tables of these names; those without rows are left out."""
    makers = [maker for name in names for maker in _MAKERS[name]]
    tables = [maker(bench) for maker in (tables_network.summary, *makers)]
    return [table for table in tables if table.rows]
