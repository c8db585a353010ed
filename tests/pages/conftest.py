"""A browser and a server for all tests of pages, with sites in every state."""

import threading
import time

import pytest

from cloud_service.overview import Overview
from cloud_service.records.store import Records
from ddnn import audit, topics, tuning
from ddnn.activation import Shadow
from ddnn.message import Message
from tests.browser import chromium
from tests.pages.messages import PERIOD_S, Offer, SiteMessages, tell
from tests.pages.server import PageServer

SCORES = ((96, 212, 70), (120, 190, 110), (88, 201, 133), (160, 140, 90), (), (60, 230, 50))


class World:
    """Sites that live as the clock goes on: each tick sends what a site would send.

    `healthy`: as it should be. `missing`: two cameras dead, one hot, the cloud away. `rollout`:
    half-way to the next bundle. `refused`: a node refuses it. `dead`: its gateway is gone.
    """

    def __init__(self, overview, records):
        self.overview, self.records = overview, records
        self.sites = {name: SiteMessages(name) for name in
                      ("healthy", "missing", "rollout", "refused", "dead")}  # fmt: skip
        self._slot = int(time.time() / PERIOD_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        now = time.time()
        self.overview.linked(True)
        for site in self.sites.values():
            tell(self.overview, site.healthy(now), now, retained=False)
        self._fill_records(now)
        self._rare_states(now)
        self._tick()
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join(5)

    def _run(self):
        while not self._stop.wait(PERIOD_S):
            self._tick()

    def _tick(self):
        """A slot of every site that decides."""
        now = time.time()
        slot = int(now / PERIOD_S)
        if slot <= self._slot:
            return
        self._slot = slot
        for name, site in self.sites.items():
            if name == "dead":
                continue
            missing = (1, 4) if name == "missing" else ()
            for camera in set(range(6)) - set(missing):
                tell(self.overview, [site.summary(camera, SCORES[camera], slot=slot)], now)
            self.overview.decided(self._decision(site, slot, missing), now + 0.0065)

    @staticmethod
    def _decision(site, slot, missing=()):
        fields = {"payload_bytes": 78, "missing": missing}
        if slot % 17 == 0:
            fields |= {"exit": "edge", "label": "car", "probability": 0.61, "threshold": 0.944531,
                       "payload_bytes": 906}  # fmt: skip
        if slot % 23 == 0:
            fields |= {"exit": "cloud", "label": "person", "probability": 0.55, "threshold": None}
        if missing and slot % 5 == 0:
            fields |= {"degraded": "cloud_down"}
        return site.decision(slot, absent=() if 4 in missing else (4,), **fields)

    def _fill_records(self, now):
        site = self.sites["healthy"]
        first = int((now - 900) / PERIOD_S)
        slots = range(first, int(now / PERIOD_S), 3)
        self.records.add([self._decision(site, slot) for slot in slots])

    def _rare_states(self, now):
        missing, new = self.sites["missing"], Offer.of(8)
        tell(self.overview, [
            missing.status("device-1", state="offline", since_s=now - 5000),
            missing.status("device-4", state="offline", since_s=now - 5000),
            missing.status("device-2", since_s=now - 5000, notes={"clock": "is 3.2 s ahead"}),
            missing.worker("cloud-0", state="offline"),
        ], now, retained=False)  # fmt: skip
        # One worker serves all sites but says of each what is true for it.
        sites = {name: site.offer.id for name, site in self.sites.items() if name != "missing"}
        staged = {"rollout": new.id}
        tell(self.overview, [missing.worker("cloud-0", sites=sites, sites_staged=staged)], now)
        rolling = self.sites["rollout"]
        tell(self.overview, [
            rolling.manifest(new),
            rolling.active(shadow=Shadow(new.id, 4)),
            *(rolling.status(f"device-{n}", staged=new.id) for n in range(4)),
            rolling.status("gateway", staged=new.id,
                           notes={"rollout": "device-4, device-5 not ready yet"}),
        ], now, retained=False)  # fmt: skip
        refusing = self.sites["refused"]
        why = "section device/2 failed its self-test: other outputs than the manifest says"
        tell(self.overview, [
            refusing.manifest(new),
            refusing.status("device-2", refused=why, refused_id=new.id),
            *(refusing.status(f"device-{n}", staged=new.id) for n in (0, 1, 3, 4, 5)),
            self._audits(refusing),
        ], now, retained=False)  # fmt: skip
        tell(self.overview, [self.sites["dead"].status("gateway", state="offline")], now)

    @staticmethod
    def _audits(site):
        found = audit.Disagreement(audited=200, disagreed=7, rate=0.035, low=0.017, high=0.07)
        bus = audit.Disagreement(audited=90, disagreed=6, rate=0.0667, low=0.031, high=0.138)
        exit_ = audit.ExitEstimate(
            exit="local", total=412, incomplete=3, all=found, classes={"bus": bus},
            reference="manifest", bound=0.05, drift=False,
        )  # fmt: skip
        estimate = audit.Estimate(
            site=site.site, bundle_tag=site.offer.tag, share=0.01, window=200, exits=(exit_,),
            begun=415, completed=412, given_up={}, skipped={}, payload_bytes=62_000,
        )  # fmt: skip
        return Message(f"ddnn/{site.site}/audit/estimate", audit.encode(estimate), True)


# Not for the whole session: while it runs this thread has an event loop, which others start, too.
@pytest.fixture(scope="package")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    records = Records(f"sqlite:///{tmp_path_factory.mktemp('records')}/records.db")
    records.migrate()
    made = World(Overview(), records)
    made.start()
    yield made
    made.stop()
    records.close()


@pytest.fixture(scope="session")
def server(world):
    with PageServer(world.overview, world.records) as running:
        yield running


@pytest.fixture
def answering(world, server):
    """The `healthy` site's broker and gateway: settings are retained and taken, or refused."""
    site = world.sites["healthy"]

    def send(topic, payload, retain):
        assert retain
        now = time.time()
        wanted = tuning.decode(payload)
        known = {"since_s": now - 5000}
        if wanted.budget_bytes_s is not None and wanted.budget_bytes_s < 100:
            known["notes"] = {"settings": "the budget is too small for this site"}
        else:
            known["settings"] = wanted
        tell(world.overview, [Message(topic, payload), site.status("gateway", **known)], now)

    server.sent.clear()
    server.send = send
    yield server
    send(topics.settings("healthy"), b"", True)
    server.send, server.may_tune = None, True
