"""What an address says by itself: whether messages to it leave this machine."""

from __future__ import annotations


def is_local(address: str) -> bool:
    """Whether HOST:PORT or unix:PATH is on this machine, whatever the network does."""
    return address.startswith("unix:") or is_loopback(address.rpartition(":")[0].strip("[]"))


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine alone. A name other than localhost may be anybody's."""
    # Here, as asking for help loads this module for its commands' options.
    import ipaddress

    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"
