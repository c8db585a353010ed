"""What Home Assistant takes as a device's discovery, as JSON Schema, and how it reads templates.

There is no machine-readable schema to take this from without the whole of Home Assistant. This one
states the documented keys of the two platforms that are used here, and refuses every other one:

- https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload (shared options, device,
  origin, components; 2024.11), and its validation, `homeassistant/components/mqtt/schemas.py` and
  `entity/` of home-assistant/core;
- https://www.home-assistant.io/integrations/sensor.mqtt/ and .../binary_sensor.mqtt/;
- device classes: https://www.home-assistant.io/integrations/binary_sensor/#device-class and
  https://www.home-assistant.io/integrations/sensor/#device-class (only those used here).
"""

import json

from jinja2.sandbox import ImmutableSandboxedEnvironment
from jsonschema import Draft202012Validator

TEXT = {"type": "string", "minLength": 1}
FLAG = {"type": "boolean"}
TOPIC = {"type": "string", "pattern": "^[^+#]{1,200}$"}
QOS = {"enum": [0, 1, 2]}
AVAILABILITY = {
    "availability": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["topic"],
            "properties": {
                "topic": TOPIC,
                "payload_available": TEXT,
                "payload_not_available": TEXT,
                "value_template": TEXT,
            },
            "additionalProperties": False,
        },
    },
    "availability_mode": {"enum": ["all", "any", "latest"]},
}
ENTITY = {
    "unique_id": TEXT,
    "name": {"type": ["string", "null"]},
    "state_topic": TOPIC,
    "value_template": TEXT,
    "icon": {"type": "string", "pattern": "^mdi:[a-z0-9-]+$"},
    "entity_category": {"const": "diagnostic"},  # `config` is not for what cannot be set
    "enabled_by_default": FLAG,
    "force_update": FLAG,
    "expire_after": {"type": "integer", "minimum": 0},
    "json_attributes_topic": TOPIC,
    "json_attributes_template": TEXT,
    "qos": QOS,
    **AVAILABILITY,
}
PLATFORMS = {
    "sensor": {
        "device_class": {"enum": ["enum", None]},
        "options": {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True},
        "state_class": {"enum": ["measurement", "total", "total_increasing"]},
        "suggested_display_precision": {"type": "integer", "minimum": 0},
        "unit_of_measurement": {"type": ["string", "null"]},
    },
    "binary_sensor": {
        "device_class": {"enum": ["connectivity", "problem", None]},
        "payload_on": TEXT,
        "payload_off": TEXT,
        "off_delay": {"type": "integer", "minimum": 0},
    },
}


def _component(platform):
    own = {"platform": {"const": platform}}
    rules = {
        "type": "object",
        "required": ["platform", "unique_id", "state_topic"],
        "properties": ENTITY | PLATFORMS[platform] | own,
        "additionalProperties": False,
    }
    if platform == "sensor":
        # An enum has options, and is no number; nothing else has options.
        rules["if"] = {
            "properties": {"device_class": {"const": "enum"}},
            "required": ["device_class"],
        }
        numeric = [{"required": ["state_class"]}, {"required": ["unit_of_measurement"]}]
        rules["then"] = {"required": ["options"], "not": {"anyOf": numeric}}
        rules["else"] = {"not": {"required": ["options"]}}
    return rules


#: A component that is to be removed has its platform alone.
_GONE = {
    "type": "object",
    "required": ["platform"],
    "properties": {"platform": {"enum": list(PLATFORMS)}},
    "additionalProperties": False,
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["device", "origin", "components"],
    "properties": {
        "device": {
            "type": "object",
            "required": ["name"],
            "anyOf": [{"required": ["identifiers"]}, {"required": ["connections"]}],
            "properties": {
                "identifiers": {"type": "array", "items": TEXT, "minItems": 1},
                "connections": {"type": "array"},
                **dict.fromkeys(
                    (
                        "name", "manufacturer", "model", "model_id", "hw_version", "sw_version",
                        "serial_number", "suggested_area", "via_device", "configuration_url",
                    ),
                    TEXT,
                ),
            },
            "additionalProperties": False,
        },
        "origin": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": TEXT, "sw_version": TEXT, "support_url": TEXT},
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "oneOf": [*(_component(platform) for platform in PLATFORMS), _GONE]
            },
        },
        "state_topic": TOPIC,
        "command_topic": TOPIC,
        "qos": QOS,
        "encoding": TEXT,
        **AVAILABILITY,
    },
    "additionalProperties": False,
}  # fmt: skip
_VALIDATOR = Draft202012Validator(SCHEMA)
_JINJA = ImmutableSandboxedEnvironment()


def problems(payload):
    """What Home Assistant would not take in a discovery message; empty: nothing."""
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in _VALIDATOR.iter_errors(json.loads(payload))
    ]


def rendered(template, payload):
    """What Home Assistant makes of a message with a template."""
    return _JINJA.from_string(template).render(value_json=json.loads(payload))
