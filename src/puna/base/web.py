"""Two facts of the web that clients and servers here both need: who an address reaches, and how long to wait."""

from __future__ import annotations

import email.utils
import ipaddress
import re
import time


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
