"""Decisions for tests of the database."""

from __future__ import annotations

from hypothesis import strategies as st

from ddnn.decisions import PublishedDecision


def decision(slot: int = 1000, **changes: object) -> PublishedDecision:
    """A decision of a site with four cameras and ten slots a second."""
    fields: dict[str, object] = {
        "site": "s1",
        "slot": slot,
        "time_s": slot / 10,
        "label": "bus",
        "probability": 0.9,
        "entropy": 0.1,
        "threshold": 0.8,
        "exit": "local",
        "members": "cameras",
        "used": (0, 1),
        "absent": (2,),
        "missing": (3,),
        "degraded": None,
        "stage_ms": {"summaries": 2.0},
        "payload_bytes": 36,
        "bundle_tag": 48879,
    }
    return PublishedDecision(**(fields | changes))


_share = st.none() | st.floats(0, 1)
_members = st.sets(st.integers(0, 31)).map(lambda found: tuple(sorted(found)))

decisions = st.builds(
    PublishedDecision,
    site=st.sampled_from(["s1", "yard-2"]),
    slot=st.integers(-1000, 2**53),
    time_s=st.integers(0, 4_000_000_000_000_000).map(lambda us: us / 1e6),
    label=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200),
    probability=_share,
    entropy=_share,
    threshold=_share,
    exit=st.sampled_from(["local", "edge", "cloud", None]),
    members=st.sampled_from(["cameras", "edges"]),
    used=_members,
    absent=_members,
    missing=_members,
    degraded=st.sampled_from([None, "overload", "cloud_down"]),
    stage_ms=st.dictionaries(
        st.sampled_from(["summaries", "features", "answer"]), st.floats(0, 1e9)
    ),
    payload_bytes=st.integers(0, 2**53),
    bundle_tag=st.integers(0, 2**16 - 1),
)
