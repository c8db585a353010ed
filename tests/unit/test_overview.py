"""The picture of a site: who lives, what runs, what is missing, what is wrong."""

import threading

import msgspec
import pytest

from cloud_service.overview import Overview
from cloud_service.picture import Picture
from cloud_service.site_state import percentile
from cloud_service.words import duration, share, size, troubles
from ddnn import summaries
from ddnn.activation import Shadow
from ddnn.health import Health
from ddnn.tuning import Tuning
from tests.pages.messages import NOW, PERIOD_S, Offer, SiteMessages, tell

SLOT = int(NOW / PERIOD_S)


@pytest.fixture
def site():
    return SiteMessages()


@pytest.fixture
def picture(site):
    made = Picture()
    tell(made, site.healthy())
    return made


def node(picture, name, now_s=NOW):
    return next(each for each in picture.site("s1", now_s).nodes if each.node == name)


def texts(picture, now_s=NOW):
    return [f"{t.where} {t.text}" for t in troubles(picture.site("s1", now_s))]


# -- who lives -------------------------------------------------------------------------------------


def test_site_that_is_well_has_no_trouble(picture):
    view = picture.site("s1", NOW)
    assert [n.node for n in view.nodes] == [
        *(f"device-{n}" for n in range(6)),
        "gateway",
        "cloud-0",
    ]
    assert all(n.alive for n in view.nodes)
    assert troubles(view) == []
    assert view.missing.cameras == ()
    assert not picture.counts


def test_camera_whose_will_came_is_offline(picture, site):
    tell(picture, [site.status("device-2", state="offline", since_s=NOW - 5000)], retained=False)
    assert (node(picture, "device-2").alive, node(picture, "device-2").why) == (False, "offline")
    assert picture.site("s1", NOW).missing.cameras == (2,)


def test_will_of_a_life_before_does_not_kill_the_present_one(picture, site):
    tell(picture, [site.status("device-2", boot=2, since_s=NOW - 1, every_s=60.0)], retained=False)
    will = site.status("device-2", state="offline", boot=1, since_s=NOW - 5000)
    tell(picture, [will], retained=False)
    assert node(picture, "device-2").alive
    assert picture.counts["status_not_taken"] == 1


def test_undated_will_of_a_life_before_does_not_kill_a_gateway_that_came_back(picture, site):
    tell(picture, [site.status("gateway", boot=2)], retained=False)
    tell(picture, [site.status("gateway", state="offline", boot=1)], retained=False)
    assert node(picture, "gateway").alive


def test_will_heard_after_an_own_outage_is_believed(picture, site):
    """The life that it ends began and ended while this reader was not connected."""
    tell(picture, [site.status("gateway", state="offline", boot=2)], retained=True)
    assert not node(picture, "gateway").alive


def test_camera_that_died_with_its_broker_is_silent_by_the_age_of_its_status(picture):
    assert node(picture, "device-0", NOW + 110).alive
    late = node(picture, "device-0", NOW + 130)
    assert (late.alive, late.why) == (False, "silent")


def test_retained_status_of_a_dead_life_counts_from_when_it_was_published(site):
    made = Picture()
    old = site.status("device-0", at_s=NOW - 9000, every_s=60.0)
    tell(made, [old], retained=True)
    assert node(made, "device-0").why == "silent"
    tell(made, [old], retained=False)  # the same bytes, said now: its clock is wrong, it lives
    assert node(made, "device-0").alive


def test_retained_status_of_a_clock_ahead_is_not_young_for_ever(site):
    made = Picture()
    tell(made, [site.status("device-0", at_s=NOW + 10**6, every_s=60.0)], retained=True)
    assert node(made, "device-0", NOW + 130).why == "silent"


def test_frames_say_that_a_camera_lives_whatever_was_said_of_it(picture, site):
    tell(picture, [site.status("device-2", state="offline", since_s=NOW)], retained=False)
    tell(picture, [site.summary(2)], NOW + 1)
    assert node(picture, "device-2", NOW + 2).alive
    assert not node(picture, "device-2", NOW + 20).alive


def test_will_after_the_last_frame_is_believed_at_once(picture, site):
    tell(picture, [site.summary(2)], NOW)
    will = site.status("device-2", state="offline", since_s=NOW - 5000)
    tell(picture, [will], NOW + 1, retained=False)
    assert not node(picture, "device-2", NOW + 1).alive


def test_camera_that_was_never_heard_is_listed_as_such(site):
    made = Picture()
    tell(made, [site.active()])
    assert node(made, "device-5").why == "never heard"
    assert any("Camera 4, Camera 5 has never been heard of" in text for text in texts(made))


def test_node_whose_status_is_cleared_is_forgotten(picture, site):
    tell(picture, [site.status("device-9")])
    assert node(picture, "device-9").alive
    picture.hear("ddnn/s1/status/device-9", b"", True, NOW)
    assert all(n.node != "device-9" for n in picture.site("s1", NOW).nodes)


def test_worker_is_seen_by_the_sites_it_serves_and_says_only_what_is_theirs(picture, site):
    notes = {"s1.bundle": "expires soon", "other.bundle": "secret", "trust": "a key is revoked"}
    sites = {"s1": site.offer.id, "other": "0" * 64}
    tell(picture, [site.worker(sites=sites, notes=notes), site.worker("cloud-1", sites={})])
    workers = [n for n in picture.site("s1", NOW).nodes if n.kind == "worker"]
    assert [n.node for n in workers] == ["cloud-0"]
    assert set(workers[0].status.sites) == {"s1"}
    assert workers[0].status.notes == {"bundle": "expires soon", "trust": "a key is revoked"}


# -- decisions and scores --------------------------------------------------------------------------


def test_decisions_are_newest_first_and_repeats_are_counted(picture, site):
    tell(picture, [site.decided(SLOT + n) for n in (0, 2, 1, 2)], NOW + 0.5)
    assert [seen.decision.slot - SLOT for seen in picture.site("s1", NOW).decisions] == [2, 1, 0]
    assert picture.counts["repeats"] == 1


def test_latency_is_from_the_slot_to_here_and_not_told_of_what_was_recalled(picture, site):
    tell(picture, [site.decided(SLOT)], NOW + 0.25)
    tell(picture, [site.decided(SLOT - 6000)], NOW + 0.25)
    view = picture.site("s1", NOW + 1)
    assert [seen.latency_ms for seen in view.decisions] == [pytest.approx(250), None]
    assert view.recent.decided == 1
    assert view.recent.latency_ms_p50 == pytest.approx(250)


def test_recent_decisions_give_rate_exits_and_payload(picture, site):
    for n in range(11):
        exit_name = "edge" if n % 2 else "local"
        message = site.decided(SLOT + n, exit=exit_name, payload_bytes=100 + n)
        tell(picture, [message], NOW + n * 0.1)
    recent = picture.site("s1", NOW + 1).recent
    assert (recent.decided, recent.exits) == (11, {"local": 6, "edge": 5})
    assert recent.per_s == pytest.approx(10)
    assert recent.payload_bytes == 105
    assert picture.site("s1", NOW + 1000).recent.decided == 0


def test_scores_are_values_around_zero_and_of_the_running_bundle_only(picture, site):
    tell(picture, [site.summary(0, (255, 128, 0)), site.summary(1, ())])
    tell(picture, [site.summary(2, offer=Offer.of(8)), site.summary(9), site.summary(3, (1, 2))])
    first, second = picture.site("s1", NOW).scores
    assert first.scores == (127 / 128, 0.0, -1.0)
    assert (second.camera, second.absent, second.scores) == (1, True, ())
    assert picture.counts["foreign"] == 3


def test_of_several_slots_in_a_message_the_last_ones_scores_are_shown(picture, site):
    each = [site.summary(0, scores, slot=n) for n, scores in enumerate([(0, 0, 9), (255, 128, 0)])]
    together = summaries.join([message.payload for message in each])
    tell(picture, [each[0]._replace(payload=together)])
    (shown,) = picture.site("s1", NOW).scores
    assert shown.scores == (127 / 128, 0.0, -1.0)


def test_camera_is_missing_after_three_decisions_without_it_and_not_after_one(picture, site):
    tell(picture, [site.decided(SLOT, missing=(3,))], NOW)
    tell(picture, [site.decided(SLOT + n) for n in (1, 2, 3)], NOW)
    assert picture.site("s1", NOW).missing.cameras == ()
    tell(picture, [site.decided(SLOT + n, missing=(1, 3)) for n in (4, 5, 6)], NOW)
    missing = picture.site("s1", NOW).missing
    assert missing.cameras == (1, 3)
    table = site.offer.manifest.missing
    assert missing.promised == table.without((1, 3)) is not None
    assert missing.complete == table.without(())
    assert "Camera 1, Camera 3 is online, but its frames do not arrive" in texts(picture)


def test_degraded_decisions_are_told_with_their_reason(picture, site):
    tell(picture, [site.decided(SLOT + n, degraded="cloud_timeout") for n in range(4)])
    assert any("100 % of the last 4 were degraded: the cloud did not" in t for t in texts(picture))


def test_site_without_decisions_for_long_is_told(picture, site):
    tell(picture, [site.decided(SLOT)])
    assert any("no decision for 40 s" in text for text in texts(picture, NOW + 40))


def test_percentile_is_the_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None


# -- bundle, settings, roll-out --------------------------------------------------------------------


def test_bundle_is_what_the_manifest_says(picture, site):
    bundle = picture.site("s1", NOW).bundle
    assert (bundle.id, bundle.version, bundle.cameras) == (site.offer.id, 7, 6)
    assert bundle.classes == ("car", "bus", "person")
    assert bundle.raw_bytes == 6 * 32 * 32 * 3
    assert set(bundle.thresholds) == {"local", "edge"}
    assert len(bundle.calibration.curve) > 2


def test_record_of_another_bundle_than_the_manifest_in_it_is_refused(picture, site):
    record = site.active(Offer.of(8)).payload.replace(Offer.of(8).id.encode(), b"0" * 64)
    picture.hear("ddnn/s1/model/active", record, True, NOW)
    assert picture.site("s1", NOW).bundle.version == 7
    assert picture.counts["malformed"] == 1


def test_settings_are_asked_then_taken_or_refused(picture, site):
    assert picture.site("s1", NOW).settings.state == "default"
    tell(picture, [site.settings(b'{"local_threshold":0.5}')])
    settings = picture.site("s1", NOW).settings
    assert settings.asked == Tuning(local_threshold=0.5)
    assert settings.state == "asked"
    tell(picture, [site.status("gateway", settings=Tuning(local_threshold=0.5))])
    assert picture.site("s1", NOW).settings.state == "taken"
    refused = site.status("gateway", notes={"settings": "outside the calibrated range"})
    tell(picture, [refused])
    assert picture.site("s1", NOW).settings.state == "refused"
    assert any("outside the calibrated range" in text for text in texts(picture))


def test_settings_that_are_not_valid_are_refused_with_the_reason(picture, site):
    tell(picture, [site.settings(b'{"local_threshold":2}')])
    settings = picture.site("s1", NOW).settings
    assert settings.state == "refused"
    assert "local_threshold" in settings.refused


def test_thresholds_in_force_are_those_of_the_last_decisions(picture, site):
    tell(picture, [site.decided(SLOT, exit="local", threshold=0.4)])
    assert picture.site("s1", NOW).settings.thresholds == {"local": 0.4}
    tell(picture, [site.active(Offer.of(8))])
    assert picture.site("s1", NOW).settings.thresholds == {}


def test_rollout_by_node_until_it_is_active(picture, site):
    new = Offer.of(8)
    assert picture.site("s1", NOW).rollout.stage == "done"
    tell(picture, [site.manifest(new), site.status("device-0", staged=new.id)])
    tell(picture, [site.status("device-1", refused="no room", refused_id=new.id)])
    tell(picture, [site.worker(sites_staged={"s1": new.id})])
    tell(picture, [site.status("device-2", state="offline")])
    rollout = picture.site("s1", NOW).rollout
    assert (rollout.version, rollout.stage) == (8, "held up")
    progress = {step.node: (step.progress, step.why) for step in rollout.nodes}
    assert progress["device-0"] == ("staged", None)
    assert progress["device-1"] == ("refused", "no room")
    assert progress["device-2"] == ("offline", None)
    assert progress["device-3"] == ("offered", None)
    assert progress["cloud-0"] == ("staged", None)

    tell(picture, [site.decided(SLOT)])
    tell(picture, [site.active(new, from_slot=SLOT + 30)])
    rollout = picture.site("s1", NOW).rollout
    assert (rollout.stage, rollout.from_slot) == ("planned", SLOT + 30)
    assert rollout.in_s == pytest.approx(3)
    assert picture.site("s1", NOW + 4).rollout.stage == "done"


def test_refusal_that_holds_up_a_rollout_is_told(picture, site):
    new = Offer.of(8)
    tell(picture, [site.manifest(new)])
    tell(picture, [site.status("device-1", refused="no room", refused_id=new.id)])
    assert texts(picture) == ["Roll-out device-1 refuses version 8: no room"]
    assert picture.briefs(NOW)[0].troubles == 1


def test_bundle_on_trial_and_bundle_given_up_are_told_apart(picture, site):
    new = Offer.of(8)
    tell(picture, [site.manifest(new), site.active(shadow=Shadow(new.id, 4))])
    assert picture.site("s1", NOW).rollout.stage == "on trial"
    tell(picture, [site.active(instead_of=new.id)])
    assert picture.site("s1", NOW).rollout.stage == "given up"


def test_sites_with_one_bundle_share_its_manifest_and_it_is_forgotten_with_the_last(site):
    made = Picture()
    other = SiteMessages("s2", site.offer)
    tell(made, [site.active(), other.active(), other.manifest()])
    assert made.site("s1", NOW).bundle is made.site("s2", NOW).bundle
    tell(made, [site.active(Offer.of(8)), other.active(Offer.of(8)), other.manifest(Offer.of(8))])
    assert len(made._bundles) == 1


# -- the rest --------------------------------------------------------------------------------------


def test_notes_and_health_are_told_in_words(picture, site):
    health = Health(problem="no such camera", throttled=("under-voltage", "capped before"))
    tell(picture, [site.status("device-4", notes={"clock": "is 3 s off"}, health=health)])
    assert texts(picture) == [
        "Camera 4 its clock: is 3 s off",
        "Camera 4 its camera: no such camera",
        "Camera 4 slowed down by its hardware: under-voltage",
    ]


def test_most_urgent_trouble_comes_first(picture, site):
    tell(picture, [site.status("device-0", state="offline"), site.worker(state="offline")])
    tell(picture, [site.status("gateway", state="offline")])
    first, *_ = troubles(picture.site("s1", NOW))
    assert (first.level, first.where) == ("bad", "Gateway")


def test_same_words_of_several_nodes_are_said_once(picture, site):
    tell(picture, [site.status(f"device-{n}", notes={"trust": "no keys"}) for n in (0, 2)])
    assert texts(picture) == ["Camera 0, Camera 2 its trusted keys: no keys"]


def test_ledger_is_kept_whole(picture, site):
    tell(picture, [site.ledger(opened=5, decided=5)])
    assert picture.site("s1", NOW).ledger == {"opened": 5, "decided": 5}


def test_brief_is_a_site_in_one_line(picture, site):
    tell(picture, [site.decided(SLOT), site.status("device-1", state="offline")])
    (brief,) = picture.briefs(NOW + 2)
    assert (brief.cameras_alive, brief.cameras, brief.label) == (5, 6, "bus")
    assert brief.idle_s == pytest.approx(2)
    assert brief.troubles == 1


def test_view_can_be_written_as_json(picture, site):
    tell(picture, [site.decided(SLOT), site.summary(0)])
    assert b'"site":"s1"' in msgspec.json.encode(picture.site("s1", NOW))


def test_broker_away_is_told_with_its_reason_and_since_when():
    now = [NOW]
    overview = Overview(lambda: now[0])
    assert not overview.link.up
    overview.linked(True)
    now[0] += 5
    overview.linked(False, "nobody answers")
    now[0] += 5
    overview.linked(False, "still nobody")
    assert (overview.link.up, overview.link.why, overview.link.since_s) == (
        False, "still nobody", NOW + 5,
    )  # fmt: skip


def test_overview_is_read_while_it_hears(site):
    overview = Overview(lambda: NOW)
    failures = []

    def read():
        try:
            for _ in range(200):
                overview.site("s1")
                overview.briefs()
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(300):
        tell(overview, [*site.healthy(), site.decided(SLOT + n), site.summary(n % 6)])
    for reader in readers:
        reader.join()
    assert failures == []


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (duration(3.2), "3 s"), (duration(600), "10 min"), (duration(10_000), "3 h"),
        (duration(10**6), "12 days"), (size(78), "78 B"), (size(18_432), "18.4 kB"),
        (size(2.5e9), "2.5 GB"), (share(0.9883), "98.8 %"), (share(1.0), "100 %"),
    ],
)  # fmt: skip
def test_numbers_in_words(made, text):
    assert made == text
