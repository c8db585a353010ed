"""Publishing a bundle: what is refused before anything is sent."""

import pytest

from ddnn import activation
from ddnn.errors import DdnnError
from ddnn.mqtt import Client
from ddnn.rollout import offer
from edge_gateway.rollouts import announce
from tests.simulation.bundles import bundle
from training.publish import publish_bundle

SITE = "s"


def record_of(made):
    """The longest activation record that the site's gateway may make of it."""
    return announce(
        SITE,
        activation.Activation(
            bundle=made.bundle_id, version=made.manifest.version, from_slot=2**62,
            manifest=offer(SITE, made)[-1].payload,
            shadow=activation.Shadow(made.bundle_id, 10_000), instead_of=made.bundle_id,
        ),
    )  # fmt: skip


def test_bundle_whose_activation_record_no_broker_would_take_is_not_published():
    """Its own messages fit; the gateway would change over, and no camera would hear of it."""
    made = bundle(1, 2)
    client = Client("127.0.0.1", 1, "publisher")
    client.max_packet = max(len(m.topic) + len(m.payload) for m in offer(SITE, made)) + 64
    for message in offer(SITE, made):
        client.check_size(message.topic, message.payload)
    with pytest.raises(DdnnError, match=r"model/active.* max_packet_size must be"):
        publish_bundle(client, SITE, made, 0.1)
    assert client.counts["published"] == 0


def test_limit_that_is_named_is_enough_for_every_record():
    made = bundle(1, 2)
    record = record_of(made)
    assert len(record.payload) <= activation.most_bytes(offer(SITE, made)[-1].payload)
