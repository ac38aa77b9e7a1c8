"""Who an address belongs to, for limits by caller."""

from __future__ import annotations

import ipaddress


def network(address: str) -> str:
    """What one caller is likely to have: an IPv4 address, also where it came over IPv6 (::ffff:), or the /64 of an IPv6
    one. 'unknown' for what is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
