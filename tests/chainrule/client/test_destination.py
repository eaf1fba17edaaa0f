"""Where `connect` goes to, and as whom."""

from __future__ import annotations

from pathlib import Path

import pytest

import chainrule
from chainrule.client.destination import destination
from chainrule.security.credentials import VARIABLES, Credentials, Tls

TOKEN = "0123456789abcdef-lab"  # noqa: S105


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of connections with one, 'lab', and nothing in the environment but it."""
    for name in (*VARIABLES, "CHAINRULE_SERVER", "CHAINRULE_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text(TOKEN)
    path = tmp_path / "config.toml"
    path.write_text('[connections.lab]\nserver = "lab.example:7"\ntls_ca = "ca.pem"\ntoken_file = "token"\n')
    monkeypatch.setenv("CHAINRULE_CONFIG", str(path))
    return tmp_path


def test_token_and_tls_are_keywords() -> None:
    assert destination("host:1", token=TOKEN, tls="ca.pem") == (
        "host:1",
        Credentials(tls=Tls(ca=Path("ca.pem")), token=TOKEN),
    )
    assert destination("host:1", tls="public").credentials.tls == Tls()
    mutual = Tls(certificate=Path("a"), key=Path("b"))
    assert destination("host:1", tls=mutual).credentials.tls is mutual


def test_what_is_not_given_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_TLS_CA", "public")
    assert destination(token=TOKEN) == ("127.0.0.1:50051", Credentials(tls=Tls(), token=TOKEN))


def test_a_named_connection_says_where_the_server_is_and_who_we_are(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_TOKEN", "0123456789abcdef-another")
    assert destination(connection="lab") == (
        "lab.example:7",
        Credentials(tls=Tls(ca=lab / "ca.pem"), token=TOKEN),
    )


def test_arguments_that_contradict_each_other_are_errors() -> None:
    with pytest.raises(chainrule.AddressError, match="'host:1' and the connection 'lab'; give one"):
        chainrule.connect("host:1", connection="lab")
    with pytest.raises(chainrule.CredentialsError, match="put them all into the credentials"):
        chainrule.connect("host:1", token=TOKEN, credentials=Credentials())
    with pytest.raises(chainrule.ConnectionFileError, match="did you mean 'lab'"):
        chainrule.connect(connection="lap")
    with pytest.raises(chainrule.AddressError, match="name of the connection is empty"):
        chainrule.connect(connection="")
    with pytest.raises(chainrule.CredentialsError, match="in the clear"):
        chainrule.connect("host.example:1", token=TOKEN)
