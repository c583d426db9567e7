"""Facts of the web that clients and servers here both need: whom an address reaches, and how long to wait."""

from __future__ import annotations

import email.utils
import ipaddress
import re
import time

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def is_loopback(host: str) -> bool:
    """Whether a host, by name or by number, is this machine and reaches nobody else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after(value: str) -> float:
    """Seconds to wait by a `Retry-After` header (RFC 9110, section 10.2.3): a number or a date; 0 for neither."""
    if re.fullmatch(r"\d+(?:\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, by the registries of RFC 6890; False for what is no address.

    An address of IPv6 that carries one of IPv4 (mapped, 6to4, Teredo, NAT64) is as public as what it carries.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        carried = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            carried.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if not all(inner is None or is_public(str(inner)) for inner in carried):
            return False
        if ip.ipv4_mapped:
            return True
    return ip.is_global and not ip.is_multicast
