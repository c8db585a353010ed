"""A site as Home Assistant sees it: one device, found by MQTT discovery.

Pure. Home Assistant (2024.11 or later) finds a device by one retained message on
`<prefix>/device/<object id>/config`. It names topics that the site publishes anyway, and templates
that take each entity's state out of their JSON; so nothing is published twice, and Home Assistant
needs no rights but to read.

Sources: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload and the pages of
the platforms `sensor.mqtt` and `binary_sensor.mqtt`.

The decision is not retained: until the next one an entity made of it is unknown. What changes with
nearly every decision (probability, entropy) is disabled until somebody wants it, and is no
attribute of the decision either: Home Assistant writes every change to its database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ddnn import topics
from ddnn.bundle import Manifest
from ddnn.message import Publish
from ddnn.place import edge_gateways, gateway_node

#: What Home Assistant says when it has started.
BIRTH = b"online"
_DIAGNOSTIC = "diagnostic"
_ATTRIBUTES = ("exit", "degraded", "used", "absent", "missing")

Component = dict[str, Any]


def discovery(
    site: str,
    manifest: Manifest,
    prefix: str,
    version: str,
    *,
    gone: Mapping[str, str] | None = None,
) -> Publish:
    """The message by which Home Assistant finds a site that runs this bundle.

    Args:
        prefix: of discovery, as Home Assistant is configured.
        version: of this program.
        gone: platform by component of what is no more: with it the message takes these away; the
            same one without must follow.
    """
    found = components(site, manifest)
    found |= {name: {"platform": platform} for name, platform in (gone or {}).items()}
    payload = {
        "device": {
            "identifiers": [topics.home_assistant_id(site)],
            "name": f"DDNN {site}",
            "manufacturer": "ddnn",
            "model": f"{manifest.name}, {manifest.topology.cameras} cameras",
            "sw_version": version,
        },
        "origin": {"name": "ddnn", "sw_version": version},
        "availability": [
            {
                "topic": topics.status(site, gateway_node(None)),
                "value_template": "{{ value_json.state }}",
                "payload_available": "online",
                "payload_not_available": "offline",
            }
        ],
        "qos": 1,
        "components": found,
    }
    topic = topics.discovery(prefix, site)
    return Publish(topic, msgspec.json.encode(payload), qos=1, retain=True)


def removal(topic: str) -> Publish:
    """Home Assistant forgets the device, and the broker the message."""
    return Publish(topic, b"", qos=1, retain=True, keep=True)


def components(site: str, manifest: Manifest) -> dict[str, Component]:
    """The entities, by component id."""
    decision, gateway = topics.decision(site), topics.status(site, gateway_node(None))
    found = {
        "decision": {
            "platform": "sensor",
            "name": "Decision",
            "device_class": "enum",
            "options": list(dict.fromkeys(manifest.classes)),
            "icon": "mdi:eye-outline",
            "state_topic": decision,
            "value_template": _or_unknown("label"),
            "json_attributes_topic": decision,
            "json_attributes_template": _attributes(),
        },
        "probability": _number(decision, "probability", "Probability", "mdi:percent-outline"),
        "entropy": _number(decision, "entropy", "Entropy", "mdi:chart-bell-curve"),
        "degraded": {
            "platform": "binary_sensor",
            "name": "Decision degraded",
            "device_class": "problem",
            "entity_category": _DIAGNOSTIC,
            "state_topic": decision,
            "value_template": "{{ 'ON' if value_json.degraded else 'OFF' }}",
        },
        "attention": {
            "platform": "binary_sensor",
            "name": "Needs attention",
            "device_class": "problem",
            "entity_category": _DIAGNOSTIC,
            "state_topic": gateway,
            "value_template": "{{ 'ON' if value_json.notes is defined else 'OFF' }}",
            "json_attributes_topic": gateway,
            "json_attributes_template": "{{ value_json.notes | default({}) | tojson }}",
        },
        "bundle": {
            "platform": "sensor",
            "name": "Bundle version",
            "entity_category": _DIAGNOSTIC,
            "icon": "mdi:package-variant-closed",
            "state_topic": gateway,
            "value_template": "{{ value_json.version | default('None') }}",
        },
        # Always available: that it is not there is what it says.
        "gateway": _node(site, gateway_node(None), "Gateway")
        | {"availability": [{"topic": gateway, "value_template": "online"}]},
    }
    for edge in edge_gateways(manifest.topology):
        found[f"gateway_{edge}"] = _node(site, gateway_node(edge), f"Edge gateway {edge}")
    for camera in range(manifest.topology.cameras):
        found[f"camera_{camera}"] = _node(site, f"device-{camera}", f"Camera {camera}")
    for name, component in found.items():
        component["unique_id"] = f"{topics.home_assistant_id(site)}_{name}"
    return found


def _attributes() -> str:
    """A template of the decision's fields that seldom change."""
    fields = ", ".join(f"'{name}': value_json.{name}" for name in _ATTRIBUTES)
    return "{{ {" + fields + "} | tojson }}"


def _or_unknown(field: str) -> str:
    """A template of a field that may be null, where nobody sees anything.

    The word None is Home Assistant's for: unknown.
    """
    return "{{ value_json.FIELD if value_json.FIELD is not none else 'None' }}".replace(
        "FIELD", field
    )


def _number(topic: str, field: str, name: str, icon: str) -> Component:
    return {
        "platform": "sensor",
        "name": name,
        "state_class": "measurement",
        "suggested_display_precision": 3,
        "entity_category": _DIAGNOSTIC,
        "enabled_by_default": False,
        "icon": icon,
        "state_topic": topic,
        "value_template": _or_unknown(field),
    }


def _node(site: str, node: str, name: str) -> Component:
    return {
        "platform": "binary_sensor",
        "name": name,
        "device_class": "connectivity",
        "entity_category": _DIAGNOSTIC,
        "state_topic": topics.status(site, node),
        "value_template": "{{ 'ON' if value_json.state == 'online' else 'OFF' }}",
    }
