"""Which nodes are shut out because they send far more than a camera does.

A broker hands everything that a node writes to its gateway, and mosquitto limits nobody's rate.
One stolen camera that sends as fast as it can would bury the other cameras' frames. So a gateway
stops listening to such a node at the broker (by its subscriptions), where dropping a message
costs next to nothing.

Much at once is no flood in itself: after a stall of this node everything that piled up comes at
once, from every member; after a stall of one member's network, what that one sent meanwhile. So a
member is shut out when it alone is over what its own network can hold back, or, with others or
without, over what this node can have slept through.
"""

from __future__ import annotations

#: So many times what a camera sends is still no flood: it may catch up after an outage.
HEADROOM = 5.0
#: Messages per second that pass whatever the period.
LEAST_PER_S = 100.0
#: Bytes per second that pass whatever the period; features are a few kB per frame at most.
BYTES_PER_S = 1_000_000.0
#: Of what a camera sends, so much may be on its way while nobody looks.
STALL_HEADROOM = 1.5
#: A member is alone with its messages when it has this many times those of any other.
ALONE = 10.0
#: Time out for the first flood, and the longest after many.
FIRST_S = 60.0
LONGEST_S = 3600.0


class _Bucket:
    """What a node has used up of what it may send at once, at a time."""

    __slots__ = ("at", "messages", "size_bytes")

    def __init__(self, now: float) -> None:
        self.messages = 0.0
        self.size_bytes = 0.0
        self.at = now


class FloodGuard:
    """A bucket of messages and one of bytes for each node.

    Args:
        period_s: of the site. A camera sends two frames per slot at most, and its status.
        stall_s: how long this node may stand still (a slow disk, a stopped process) before its
            broker gives it up. What came meanwhile then comes at once, from every member.
    """

    def __init__(self, period_s: float, stall_s: float) -> None:
        self.rate_per_s = max(LEAST_PER_S, HEADROOM * 2.0 / period_s)
        # Beyond the rate: of one member alone (its summaries), and of any (features as well).
        self.burst_alone = max(self.rate_per_s, stall_s / period_s)
        self.burst = max(self.burst_alone, STALL_HEADROOM * stall_s * 2.0 / period_s)
        self._stall_s = stall_s
        self.burst_bytes = BYTES_PER_S * max(1.0, stall_s)
        self._buckets: dict[str, _Bucket] = {}
        self._out: dict[str, float] = {}
        self._times: dict[str, int] = {}

    @property
    def shut_out(self) -> list[str]:
        """Nodes that are not listened to, in order."""
        return sorted(self._out)

    def is_out(self, node: str) -> bool:
        """Whether what comes from this node is not to be looked at."""
        return node in self._out

    def on_message(self, node: str, size_bytes: int, now: float, reports: int = 1) -> bool:
        """Count a message of a node that is listened to; True: shut it out from now on.

        Args:
            reports: one that reports on several slots is as much work as so many.
        """
        bucket = self._buckets.get(node)
        if bucket is None:
            if node in self._out:
                return False
            bucket = self._buckets[node] = _Bucket(now)
        passed = max(0.0, now - bucket.at)
        bucket.at = now
        bucket.messages = max(0.0, bucket.messages - passed * self.rate_per_s) + reports
        bucket.size_bytes = max(0.0, bucket.size_bytes - passed * BYTES_PER_S) + size_bytes
        if bucket.messages <= self.burst_alone and bucket.size_bytes <= self.burst_bytes:
            return False
        is_too_much = bucket.messages > self.burst or bucket.size_bytes > self.burst_bytes
        if not is_too_much and not self._is_alone(node, now):
            return False
        del self._buckets[node]
        times = self._times.get(node, 0)
        self._times[node] = times + 1
        self._out[node] = now + min(LONGEST_S, FIRST_S * 2.0 ** min(times, 10))
        return True

    def _is_alone(self, node: str, now: float) -> bool:
        """Whether it is over what may come of one node while the others send as ever."""
        used = self._buckets[node].messages
        others = [
            bucket.messages
            for other, bucket in self._buckets.items()
            if other != node and now - bucket.at < self._stall_s
        ]
        return used > self.burst_alone and bool(others) and used > ALONE * max(others)

    def on_time(self, now: float) -> list[str]:
        """Nodes whose time is over: listen to them again."""
        over = [node for node, until in self._out.items() if now >= until]
        for node in over:
            del self._out[node]
        return over
