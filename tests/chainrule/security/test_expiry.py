"""Servers, workers and clients say that a certificate or its authority expires soon."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest

from chainrule.client.blocking.client import Client
from chainrule.security import certificates
from chainrule.security.credentials import Credentials, Tls
from chainrule.security.expiry import daily, expiry_warnings

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Certificates for 20 days, and an authority for ten years."""
    certificates.create(tmp_path / "c", hosts=["localhost"], days=20, now=NOW)
    return tmp_path / "c"


def test_a_certificate_and_an_authority_that_expire_soon_are_named_with_what_to_do(folder: Path) -> None:
    files = {"certificate": folder / "worker.pem", "authority": folder / "ca.pem"}
    assert expiry_warnings("this worker's", **files, now=NOW - 11 * DAY) == []
    (soon,) = expiry_warnings("this worker's", **files, now=NOW)
    assert soon.startswith(f"this worker's certificate {folder / 'worker.pem'} expires on ")
    assert soon.endswith("days; renew it ('chainrule certificates renew')")
    over, authority = expiry_warnings("this worker's", **files, now=NOW + 3630 * DAY)
    assert "has expired" in over
    assert authority.startswith(f"the authority {folder / 'ca.pem'} expires on ")
    assert "chainrule certificates create" in authority


def test_a_renewed_certificate_is_warned_of_no_more_and_one_that_is_gone_is_told(folder: Path) -> None:
    certificates.renew(folder, hosts=[], days=300, now=NOW)
    assert expiry_warnings("its", certificate=folder / "worker.pem", authority=None, now=NOW) == []
    (folder / "worker.pem").unlink()
    (gone,) = expiry_warnings("its", certificate=folder / "worker.pem", authority=None, now=NOW)
    assert "worker.pem can't be read" in gone


def test_of_several_authorities_in_a_file_the_last_counts(folder: Path, tmp_path: Path) -> None:
    certificates.create(tmp_path / "old", hosts=["localhost"], days=20, now=NOW - 3640 * DAY)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "old" / "ca.pem").read_bytes() + (folder / "ca.pem").read_bytes())
    assert len(expiry_warnings("its", certificate=None, authority=tmp_path / "old" / "ca.pem", now=NOW)) == 1
    assert expiry_warnings("its", certificate=None, authority=both, now=NOW) == []


def test_a_client_that_connects_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tls = Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    with caplog.at_level(logging.WARNING), Client("127.0.0.1:1", credentials=Credentials(tls)):
        pass
    assert [record.getMessage().partition(" expires")[0] for record in caplog.records] == [
        f"this client's certificate {folder / 'client.pem'}"
    ]


def test_a_process_that_goes_on_says_so_every_day() -> None:
    done: list[object] = []

    def sleep(seconds: float) -> None:
        done.append(seconds)
        if len(done) == 6:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        daily(lambda: done.append("told"), sleep)
    assert done == ["told", 24 * 3600.0] * 3
