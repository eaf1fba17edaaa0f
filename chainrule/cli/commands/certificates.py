"""`chainrule certificates`: make, renew and show a private authority and its certificates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from chainrule.cli.output import print_json, print_line, print_table
from chainrule.security import certificates
from chainrule.security.certificates import Shown
from chainrule.security.tls_files import day


def create(folder: Path, *, hosts: Sequence[str], days: int, as_json: bool) -> None:
    """Make what the folder lacks."""
    _print(certificates.create(folder, hosts=hosts, days=days, now=_now()), as_json=as_json)
    if not as_json:
        print_line()
        print_line(f"ca.key makes certificates: keep it where {folder} is, and give it to nobody. Next:")
        print_line(f"  chainrule server --tls-certificate {folder}/server.pem --tls-key {folder}/server.key …")
        print_line(f"  chainrule worker --tls-ca {folder}/ca.pem …")


def renew(folder: Path, *, hosts: Sequence[str], days: int, as_json: bool) -> None:
    """Replace all but the authority."""
    _print(certificates.renew(folder, hosts=hosts, days=days, now=_now()), as_json=as_json)


def show(folder: Path, *, as_json: bool) -> None:
    """Print what the folder holds and when it expires."""
    _print(certificates.show(folder), as_json=as_json)


def _print(shown: Sequence[Shown], *, as_json: bool) -> None:
    now = _now()
    if as_json:
        print_json(
            {
                "certificates": [
                    {
                        "name": each.name,
                        "path": str(each.path),
                        "expires": each.not_after.isoformat(),
                        "hosts": list(each.hosts),
                    }
                    for each in shown
                ]
            }
        )
        return
    rows = [("CERTIFICATE", "EXPIRES", "DAYS LEFT", "FOR")]
    rows += [
        (str(each.path), day(each.not_after), _left(each.not_after - now), ", ".join(each.hosts)) for each in shown
    ]
    print_table(rows)


def _left(left: datetime.timedelta) -> str:
    return str(left.days) if left > datetime.timedelta(0) else "expired"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
