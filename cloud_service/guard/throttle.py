"""How often something may be tried. Pure, and bounded in memory.

One bucket for each key (an address, a user's name): `burst` tries at once, then one every
`refill_s`. With `max_keys` in memory the one untouched for longest is forgotten; that one has had
the most time to refill.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict


class Throttle:
    """Buckets by key.

    Args:
        burst: tries at once.
        refill_s: seconds until one more is allowed.
    """

    def __init__(self, burst: int, refill_s: float, max_keys: int = 10_000) -> None:
        self._burst = float(burst)
        self._refill_s = refill_s
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> float:
        """Take one try.

        Returns:
            0.0 where it is allowed; else how many seconds to wait.
        """
        left, at = self._buckets.get(key, (self._burst, now))
        left = min(self._burst, left + (now - at) / self._refill_s)
        wait_s = 0.0 if left >= 1.0 else (1.0 - left) * self._refill_s
        if not wait_s:
            left -= 1.0
        self._buckets[key] = left, now
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return wait_s

    def forget(self, key: str) -> None:
        """It was a good try: its bucket is full again."""
        self._buckets.pop(key, None)


def network_of(address: str) -> str:
    """What an address is counted as: an IPv6 host has a whole /64 to come from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
