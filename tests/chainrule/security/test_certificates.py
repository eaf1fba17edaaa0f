"""Certificates and their files: what `chainrule certificates` makes, and what is said of files that are of no use."""

from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest

from chainrule.cli.app import run
from chainrule.errors import CredentialsError
from chainrule.security.certificates import CALLERS, create, renew, show
from chainrule.security.tls_files import expiry_warning, read_authorities, read_identity

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def make(folder: Path, *, hosts: tuple[str, ...] = (), days: int = 90) -> Path:
    create(folder, hosts=hosts, days=days, now=NOW)
    return folder


def test_an_authority_lives_ten_years_and_its_certificates_as_long_as_asked_for(tmp_path: Path) -> None:
    shown = {each.name: each for each in create(tmp_path / "c", hosts=["db.example"], days=90, now=NOW)}
    assert set(shown) == {"ca", "server", *CALLERS}
    assert shown["ca"].not_after - NOW == 3650 * DAY
    assert all(each.not_after - NOW == 90 * DAY for name, each in shown.items() if name != "ca")
    assert shown["server"].hosts == ("db.example", "localhost", "127.0.0.1", "::1")


def test_a_certificate_never_outlives_its_authority(tmp_path: Path) -> None:
    late = NOW + 3600 * DAY
    make(tmp_path)
    shown = {each.name: each for each in renew(tmp_path, hosts=[], days=365, now=late)}
    assert shown["server"].not_after == shown["ca"].not_after


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    make(tmp_path / "c")
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    for path in (tmp_path / "c").glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_keys_that_are_there_stay(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "client.pem").unlink()
    (tmp_path / "client.key").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make(tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) == {*before, "client.pem", "client.key"}
    assert {name: after[name] for name in before} == before


def test_a_server_that_lacks_a_host_is_not_replaced_silently(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(CredentialsError, match=r"isn't made for db\.example"):
        make(tmp_path, hosts=("db.example",))
    shown = {each.name: each for each in renew(tmp_path, hosts=["db.example"], days=90, now=NOW)}
    assert "db.example" in shown["server"].hosts


def test_renewing_gives_all_but_the_authority_a_new_key_and_keeps_the_hosts(tmp_path: Path) -> None:
    make(tmp_path, hosts=("db.example", "10.0.0.7"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    shown = {each.name: each for each in renew(tmp_path, hosts=[], days=30, now=NOW + 80 * DAY)}
    assert shown["server"].hosts[:2] == ("db.example", "10.0.0.7")
    assert shown["server"].not_after == NOW + 110 * DAY
    same = {name for name, content in before.items() if (tmp_path / name).read_bytes() == content}
    assert same == {"ca.pem", "ca.key"}


@pytest.mark.parametrize("host", ["", "a b", "http://x", "x:1", "-x", "x" * 300, "1.2.3.4.5/8"])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(CredentialsError, match="--host"):
        make(tmp_path, hosts=(host,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, 826])
def test_a_lifetime_must_be_sane(tmp_path: Path, days: int) -> None:
    with pytest.raises(CredentialsError, match="--days"):
        make(tmp_path, days=days)


def test_openssl_takes_the_certificates_with_its_strictest_checks(tmp_path: Path) -> None:
    """Today's, since OpenSSL looks at the clock: a handshake in memory, each side checking the other."""
    now = datetime.datetime.now(datetime.UTC)
    create(tmp_path, hosts=["db.example"], days=90, now=now)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    for context, name in ((server, "server"), (client, "worker")):
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="db.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = [False, False]
    for _ in range(10):
        for number, side in enumerate(sides):
            try:
                side.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                continue
    assert done == [True, True]
    peer = sides[1].getpeercert()
    assert peer is not None
    assert (("organizationalUnitName", "worker"),) in peer["subject"]


def test_files_that_are_of_no_use_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    make(tmp_path)
    pem, key = tmp_path / "server.pem", tmp_path / "server.key"
    assert read_identity(pem, key, now=NOW).not_after == NOW + 90 * DAY
    (tmp_path / "text").write_text("hello")
    cases = [
        (pem, tmp_path / "client.key", NOW, "doesn't belong to the certificate"),
        (pem, tmp_path / "none.key", NOW, "can't be read: No such file"),
        (tmp_path / "none.pem", key, NOW, "can't be read: No such file"),
        (tmp_path / "text", key, NOW, "holds no certificate in PEM"),
        (pem, tmp_path / "text", NOW, "holds no private key in PEM"),
        (pem, key, NOW + 90 * DAY, "has expired, on 2030-04-01"),
        (pem, key, NOW - DAY, "is the clock right"),
    ]
    for certificate, private_key, now, said in cases:
        with pytest.raises(CredentialsError, match=said):
            read_identity(certificate, private_key, now=now)
    with pytest.raises(CredentialsError, match="holds no certificate"):
        read_authorities(tmp_path / "text")


def test_an_expiry_is_warned_of_a_month_ahead() -> None:
    def warning(days: float) -> str:
        return expiry_warning("it", NOW + days * DAY, now=NOW, remedy="renew it") or ""

    assert warning(31) == ""
    assert warning(29.5) == "it expires on 2030-01-30, in 29 days; renew it"
    assert "has expired" in warning(0)


def test_the_commands_make_show_and_renew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "c")
    assert run(["certificates", "create", folder, "--host", "db.example", "--days", "30"]) == 0
    assert "db.example" in capsys.readouterr().out
    assert run(["certificates", "renew", folder, "--days", "60"]) == 0
    assert run(["certificates", "show", folder]) == 0
    assert "59" in capsys.readouterr().out
    assert run(["certificates", "show", str(tmp_path)]) == 2
    assert "holds no certificates" in capsys.readouterr().err


def test_a_folder_without_its_authority_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(CredentialsError, match=r"ca\.pem can't be read"):
        make(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(CredentialsError, match=r"but no ca\.pem and ca\.key"):
        make(tmp_path)
    assert show(tmp_path)[0].name == "server"
