"""Whatever arrives at the dashboard: nothing raises, memory stays bounded, views can be made."""

from contextlib import suppress

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service import picture as module
from cloud_service import site_state
from cloud_service.picture import Picture
from cloud_service.words import troubles
from ddnn.errors import WireError
from ddnn.wire import decode
from tests.pages.messages import NOW, PERIOD_S, Offer, SiteMessages, tell
from tests.properties.test_nothing_that_arrives_raises import ANY, NEARLY, mutated

SLOT = int(NOW / PERIOD_S)
MANY = settings(max_examples=150, deadline=None)
SITE = SiteMessages()
NEXT = Offer.of(8)
TOPICS = st.sampled_from(
    ["ddnn/s1/status/device-0", "ddnn/s1/status/gateway", "ddnn/s1/status/", "ddnn/s1/status/a/b",
     "ddnn/_cloud/status/w", "ddnn/_cloud/status/", "ddnn/s1/ledger", "ddnn/s1/ledger/gateway-0",
     "ddnn/s1/settings", "ddnn/s1/model/active", "ddnn/s1/model/manifest", "ddnn/s1/decision",
     "ddnn/s1/audit", "s1/s/0", "s1/s/99999", "s1/s/x", "ddnn/s 1/ledger", "ddnn//ledger", "", "/",
     "ddnn/s1/model/section/0/0"]
) | st.text(max_size=30)  # fmt: skip
KNOWN = [
    *SITE.healthy(),
    SITE.decided(SLOT),
    SITE.decided(SLOT + 1, missing=(0,), degraded="cloud_timeout"),
    SITE.summary(0),
    SITE.settings(b'{"local_threshold":0.5}'),
    SITE.ledger(opened=3, decided=2, expired=1),
    SITE.manifest(NEXT),
    SITE.active(NEXT, from_slot=SLOT + 9),
    SITE.status("device-1", refused="no", refused_id=NEXT.id, notes={"clock": "off"}),
]
MESSAGES = st.lists(
    st.one_of(
        st.tuples(TOPICS, ANY | NEARLY),
        st.sampled_from(KNOWN).flatmap(
            lambda m: st.tuples(st.just(m.topic), mutated(m.payload) | st.just(m.payload))
        ),
    ),
    max_size=12,
)
TIMES = st.floats(-1e12, 1e12)


@MANY
@given(MESSAGES, TIMES, st.booleans())
def test_no_message_raises_and_every_view_can_be_made(messages, now_s, retained):
    made = Picture()
    tell(made, KNOWN[:9])
    for topic, payload in messages:
        made.hear(topic, payload, retained, now_s)
    for name in made.sites():
        view = made.site(name, now_s + 1)
        msgspec.json.encode(view)
        for trouble in troubles(view):
            assert len(trouble.text) < 1000
    made.briefs(now_s)


@MANY
@given(st.sampled_from(["slot", "payload_bytes", "time_s", "probability"]), st.integers())
def test_no_number_in_a_decision_is_too_large(field, number):
    made = Picture()
    tell(made, SITE.healthy())
    fields = msgspec.to_builtins(SITE.decision(SLOT)) | {field: number * 10**300}
    with suppress(msgspec.ValidationError):
        made.hear("ddnn/s1/decision", msgspec.json.encode(fields), False, NOW)
        made.hear("ddnn/s1/decision", str(fields).replace("'", '"').encode(), False, NOW)
    msgspec.json.encode(made.site("s1", NOW))


@MANY
@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=12)), max_size=30))
def test_summaries_of_anybody_change_scores_of_the_bundles_own_cameras_only(frames):
    made = Picture()
    tell(made, SITE.healthy())
    for camera, payload in frames:
        made.hear(f"s1/s/{camera}", payload, False, NOW)
    for scores in made.site("s1", NOW).scores:
        assert scores.camera < 6
        assert len(scores.scores) in (0, 3)
    for _, payload in frames:
        with suppress(WireError):
            decode(payload)


def test_memory_is_bounded_whoever_writes(monkeypatch):
    monkeypatch.setattr(module, "MAX_SITES", 5)
    monkeypatch.setattr(module, "MAX_WORKERS", 3)
    made = Picture()
    for n in range(20):
        tell(made, [SiteMessages(f"s{n}", SITE.offer).ledger(opened=1), SITE.worker(f"w{n}")])
    assert len(made.sites()) == 5
    assert made.counts["sites_over_limit"] >= 15
    assert made.counts["workers_over_limit"] == 17
    for n in range(2 * site_state.MAX_NODES):
        tell(made, [SITE.status(f"node-{n}")])
    for n in range(10 * site_state.MAX_RECENT):
        tell(made, [SITE.decided(SLOT + n)])
    view = made.site("s1", NOW)
    assert len(view.nodes) <= site_state.MAX_NODES + 3
    assert len(view.decisions) == site_state.MAX_DECISIONS
    assert view.recent.decided == site_state.MAX_RECENT


def test_bytes_held_are_bounded_and_given_back(monkeypatch):
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 120_000)
    made = Picture()
    tell(made, SITE.healthy())
    held = made._held_bytes
    for n in range(40):
        tell(made, [SITE.status(f"node-{n}", notes={"x": "y" * 10_000})])
    assert made._held_bytes <= 120_000
    assert made.counts["memory_over_limit"] > 0
    for n in range(40):
        made.hear(f"ddnn/s1/status/node-{n}", b"", True, NOW)
    assert made._held_bytes == held


def test_status_over_its_limit_is_not_even_parsed():
    made = Picture()
    made.hear("ddnn/s1/status/a", b"[" * 20_000, True, NOW)
    assert made.counts == {"oversize": 1}
    assert made.sites() == ()
