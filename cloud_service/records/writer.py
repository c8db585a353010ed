"""One transaction that takes decisions and ledgers up; see `cloud_service.records.store`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from cloud_service.records.counting import SPANS_S, Tally, tallies_of
from cloud_service.records.ledgers import Balance, Ledger, compare
from cloud_service.records.rows import decision_of, row_of, time_us
from cloud_service.records.tables import decisions, ledgers, sites, tallies
from ddnn.decisions import PublishedDecision

#: Names come from the network.
MAX_SITES = 10_000
#: A ledger is kept this often, and whenever the number of lost decisions has changed.
LEDGER_EVERY_US = 300_000_000

Key = tuple[str, int]


class Heard(NamedTuple):
    """A ledger in the stream of decisions: it counts those before it.

    Attributes:
        at_s: when it was heard, seconds since 1970.
    """

    site: str
    ledger: Ledger
    at_s: float


class Written(NamedTuple):
    """What a transaction has done, of use once it is committed.

    Attributes:
        counts: decisions that were new, repeats, conflicts, too_old, sites_over_limit.
        conflicts: by site, a slot that has another decision already.
        lost: by site, as of its last ledger.
        ledger_rows: by site, time (microseconds) and `lost` of its last row of ledgers.
    """

    counts: Counter[str]
    conflicts: dict[str, int]
    lost: dict[str, int]
    ledger_rows: dict[str, tuple[int, int]]


def write(
    connection: Connection,
    batch: Sequence[PublishedDecision | Heard],
    ledger_rows: dict[str, tuple[int, int]],
) -> Written:
    """Store what is not here yet.

    Args:
        connection: in a transaction that may write.
        ledger_rows: of the transactions before this one.
    """
    counts: Counter[str] = Counter()
    conflicts: dict[str, int] = {}
    known = _sites(connection, {each.site for each in batch})
    given = [each for each in batch if isinstance(each, PublishedDecision)]
    wanted: dict[Key, PublishedDecision] = {}
    again: list[PublishedDecision] = []
    for decision in given:
        site, key = known.get(decision.site), (decision.site, decision.slot)
        if site is None:
            counts["sites_over_limit"] += 1
        elif time_us(decision.time_s) < site.kept_from_us:
            counts["too_old"] += 1
        elif key in wanted:
            again.append(decision)
        else:
            wanted[key] = decision
    new = _insert(connection, wanted, known)
    settled = dict(wanted)
    for before in _others(connection, wanted, new, known):
        key = before.site, before.slot
        settled[key] = before
        again.append(wanted[key])
    for decision in again:
        _count_again(settled[decision.site, decision.slot], decision, counts, conflicts)
    fresh = [wanted[key] for key in new]
    counts["new"] = len(fresh)
    _add_tallies(connection, fresh, known)
    _add_to_sites(connection, fresh, known)
    lost, rows = _write_ledgers(connection, batch, set(new), known, ledger_rows)
    return Written(counts, conflicts, lost, rows)


def _on_conflict(connection: Connection, table: sa.Table) -> Any:
    """INSERT with ON CONFLICT, which the two servers spell alike and SQLAlchemy does not."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def _sites(connection: Connection, names: set[str]) -> dict[str, Any]:
    """Rows of sites by name, made where there are none, locked till the end of the transaction."""
    chosen = sa.select(sites).where(sites.c.name.in_(names)).order_by(sites.c.id).with_for_update()
    found = {row.name: row for row in connection.execute(chosen)}
    room = MAX_SITES
    if len(found) < len(names):
        room -= connection.scalar(sa.select(sa.func.count()).select_from(sites)) or 0
    missing = sorted(names - found.keys())[: max(0, room)]
    if missing:
        empty = {"stored": 0, "kept": 0, "newest_us": 0, "kept_from_us": 0}
        insert = _on_conflict(connection, sites).on_conflict_do_nothing()
        connection.execute(insert, [{"name": name, **empty} for name in missing])
        found = {row.name: row for row in connection.execute(chosen)}
    return found


def _insert(
    connection: Connection, wanted: dict[Key, PublishedDecision], known: dict[str, Any]
) -> list[Key]:
    """Keys of those that were not here, in the order in which they came."""
    if not wanted:
        return []
    c = decisions.c
    insert = _on_conflict(connection, decisions).on_conflict_do_nothing()
    rows = [row_of(decision, known[decision.site].id) for decision in wanted.values()]
    inserted = {tuple(row) for row in connection.execute(insert.returning(c.site_id, c.slot), rows)}
    return [key for key in wanted if (known[key[0]].id, key[1]) in inserted]


def _others(
    connection: Connection,
    wanted: dict[Key, PublishedDecision],
    new: Iterable[Key],
    known: dict[str, Any],
) -> Iterator[PublishedDecision]:
    """What is here of those that were here already."""
    others: dict[str, list[int]] = {}
    for site, slot in wanted.keys() - set(new):
        others.setdefault(site, []).append(slot)
    for site, slots in others.items():
        chosen = sa.select(decisions).where(
            decisions.c.site_id == known[site].id, decisions.c.slot.in_(slots)
        )
        for row in connection.execute(chosen).mappings():
            yield decision_of(row, site)


def _count_again(
    first: PublishedDecision,
    again: PublishedDecision,
    counts: Counter[str],
    conflicts: dict[str, int],
) -> None:
    """A decision that comes again must be the same one."""
    if decision_of(row_of(again, 0), again.site) == decision_of(row_of(first, 0), first.site):
        counts["repeats"] += 1
    else:
        counts["conflicts"] += 1
        conflicts[again.site] = again.slot


def _add_tallies(
    connection: Connection, fresh: Iterable[PublishedDecision], known: dict[str, Any]
) -> None:
    counts: Counter[tuple[int, int, int, Tally]] = Counter()
    finest_s, *longer = SPANS_S
    for decision in fresh:
        start_s = time_us(decision.time_s) // 1_000_000 // finest_s * finest_s
        for tally, count in tallies_of(decision):
            counts[known[decision.site].id, finest_s, start_s, tally] += count
    if not counts:
        return
    for (site_id, _, start_s, tally), count in list(counts.items()):
        for span_s in longer:
            counts[site_id, span_s, start_s // span_s * span_s, tally] += count
    insert = _on_conflict(connection, tallies)
    c = tallies.c
    add = insert.on_conflict_do_update(
        index_elements=[c.site_id, c.span_s, c.start_s, c.what, c.name],
        set_={"count": c.count + insert.excluded.count},
    )
    names = ("site_id", "span_s", "start_s", "what", "name", "count")
    rows = [(site, span, start, *tally, n) for (site, span, start, tally), n in counts.items() if n]
    connection.execute(add, [dict(zip(names, row, strict=True)) for row in sorted(rows)])


def _add_to_sites(
    connection: Connection, fresh: Sequence[PublishedDecision], known: dict[str, Any]
) -> None:
    added = Counter(decision.site for decision in fresh)
    newest: dict[str, int] = {}
    for decision in fresh:
        newest[decision.site] = max(newest.get(decision.site, 0), time_us(decision.time_s))
    for name, count in sorted(added.items()):
        site = known[name]
        connection.execute(
            sites.update()
            .where(sites.c.id == site.id)
            .values(
                stored=sites.c.stored + count,
                kept=sites.c.kept + count,
                newest_us=max(site.newest_us, newest[name]),
            )
        )


def _write_ledgers(
    connection: Connection,
    batch: Sequence[PublishedDecision | Heard],
    new: set[Key],
    known: dict[str, Any],
    before: dict[str, tuple[int, int]],
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Compare each ledger with what had been stored when it came."""
    stored = {name: site.stored for name, site in known.items()}
    balances = {
        name: Balance(total=site.ledger_total, offset=site.ledger_offset)
        for name, site in known.items()
        if site.ledger_total is not None
    }
    lost: dict[str, int] = {}
    last: dict[str, Heard] = {}
    for each in batch:
        if isinstance(each, PublishedDecision):
            if (each.site, each.slot) in new:
                new.remove((each.site, each.slot))
                stored[each.site] += 1
        elif each.site in known:
            balance, missing = compare(balances.get(each.site), each.ledger, stored[each.site])
            balances[each.site], lost[each.site], last[each.site] = balance, missing, each
    rows: dict[str, tuple[int, int]] = {}
    for name, heard in sorted(last.items()):
        site, balance = known[name], balances[name]
        if (site.ledger_total, site.ledger_offset) != (balance.total, balance.offset):
            connection.execute(
                sites.update()
                .where(sites.c.id == site.id)
                .values(ledger_total=balance.total, ledger_offset=balance.offset)
            )
        at_us = time_us(heard.at_s)
        row_us, row_lost = before.get(name, (0, 0))
        if not row_us <= at_us < row_us + LEDGER_EVERY_US or row_lost != lost[name]:
            counts = {field: getattr(heard.ledger, field) for field in Ledger.__struct_fields__}
            connection.execute(
                _on_conflict(connection, ledgers).on_conflict_do_nothing(),
                {"site_id": site.id, "at_us": at_us, **counts, "stored": stored[name]}
                | {"lost": lost[name]},
            )
            rows[name] = (at_us, lost[name])
    return lost, rows
