"""Many readers cost what one costs: views and the database's answers are made once."""

import asyncio

import pytest

from cloud_service.overview import Overview
from cloud_service.pages import history
from cloud_service.pages.history import SPANS, Shared
from cloud_service.pages.site import Views
from cloud_service.records.store import Records
from ddnn.errors import DdnnError
from tests.pages.messages import NOW, SiteMessages, tell


class CountingOverview(Overview):
    made = 0

    def site(self, name):
        self.made += 1
        return super().site(name)


def test_hundred_readers_of_a_site_share_its_view():
    overview = CountingOverview(lambda: NOW)
    tell(overview, SiteMessages().healthy())
    views = Views(overview)
    shown = {id(views.of("s1")[0]) for _ in range(100)}
    assert overview.made == len(shown) == 1
    assert views.of("nowhere") is None


class Slow:
    def __init__(self, error=None):
        self.asked, self.error = 0, error

    def buckets(self, site, from_s, to_s, bucket_s):
        self.asked += 1
        if self.error:
            raise self.error
        return []


async def read(shared, count=20):
    asked = [shared.buckets("s1", SPANS[0]) for _ in range(count)]
    return await asyncio.gather(*asked)


def test_database_is_asked_once_for_all_readers(monkeypatch):
    records = Slow()
    monkeypatch.setattr(history.run, "io_bound", at_once)
    assert asyncio.run(read(Shared(records))) == [[]] * 20
    assert records.asked == 1


def test_database_that_is_away_is_said_and_not_asked_again_at_once(monkeypatch):
    records = Slow(DdnnError("the database does not answer"))
    monkeypatch.setattr(history.run, "io_bound", at_once)
    found = asyncio.run(read(Shared(records)))
    assert set(found) == {"The records cannot be read: the database does not answer"}
    assert records.asked == 1


def test_dashboard_without_records_says_so():
    (found,) = asyncio.run(read(Shared(None), 1))
    assert "keeps no records" in found


async def at_once(call, *args):
    await asyncio.sleep(0)  # others come meanwhile
    return call(*args)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    made = Records(f"sqlite:///{tmp_path_factory.mktemp('records')}/records.db")
    made.migrate()
    made.add([SiteMessages().decision(int(NOW * 10) - 50)])
    yield made
    made.close()


@pytest.mark.parametrize("span", SPANS, ids=lambda span: span.name)
def test_every_span_is_one_that_the_records_answer(span, records):
    found = records.buckets("s1", NOW - span.length_s, NOW, span.bucket_s)
    assert sum(bucket.decided for bucket in found) == 1
    assert len(found) <= 200
