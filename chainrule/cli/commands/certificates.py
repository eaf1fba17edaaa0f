"""`chainrule certificates`: make, renew and show a private authority and its certificates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import Json
from chainrule.cli.output import print_json, print_line, print_table
from chainrule.security import certificates
from chainrule.security.certificates import Shown
from chainrule.security.tls_files import day

app = typer.Typer(
    name="certificates",
    help="Make a private authority and certificates for TLS; renew and show them.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the authority and its certificates.")]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="A name or address that the server is reached by; may be repeated."),
]
Days = Annotated[int, typer.Option("--days", metavar="D", help="How long certificates live; the authority: 10 years.")]
DEFAULT_FOLDER = Path("certificates")
DEFAULT_DAYS = 365


@app.command("create")
def create_certificates(
    folder: Folder = DEFAULT_FOLDER, hosts: Hosts = None, days: Days = DEFAULT_DAYS, as_json: Json = False
) -> None:
    """Make an authority and certificates for the server, workers and clients; keys that are there stay."""
    _print(certificates.create(folder, hosts=hosts or [], days=days, now=_now()), as_json=as_json)
    if not as_json:
        print_line()
        print_line(f"ca.key makes certificates: keep it where {folder} is, and give it to nobody. Next:")
        print_line(f"  chainrule server --tls-certificate {folder}/server.pem --tls-key {folder}/server.key …")
        print_line(f"  chainrule worker --tls-ca {folder}/ca.pem …")


@app.command("renew")
def renew_certificates(
    folder: Folder = DEFAULT_FOLDER, hosts: Hosts = None, days: Days = DEFAULT_DAYS, as_json: Json = False
) -> None:
    """Replace all certificates but the authority's by new ones, for the same hosts or those given."""
    _print(certificates.renew(folder, hosts=hosts or [], days=days, now=_now()), as_json=as_json)


@app.command("show")
def show_certificates(folder: Folder = DEFAULT_FOLDER, as_json: Json = False) -> None:
    """Show the certificates of a folder and when they expire."""
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
