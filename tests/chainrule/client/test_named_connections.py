"""A named connection says which server a command talks to, and who it is there; what the command line says holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from chainrule.cli.app import run
from chainrule.client.named_connections import ConnectionFile, config_path, use_connection
from chainrule.errors import ConnectionFileError
from tests.chainrule.conftest import FakeServer

LAB = """
default = "lab"

[connections.lab]
server = "trainer.example:50051"
tls_ca = "lab/ca.pem"
token_file = "/run/token"

[connections.home]
server = "127.0.0.1:7"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home with a file of connections."""
    path = tmp_path / ".config" / "chainrule" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(LAB)
    return tmp_path


def test_the_default_connection_is_used_where_nothing_else_is_said(folder: Path) -> None:
    environment: dict[str, str] = {}
    use_connection(environment, folder, None)
    assert environment == {
        "CHAINRULE_SERVER": "trainer.example:50051",
        "CHAINRULE_TLS_CA": str(folder / ".config/chainrule/lab/ca.pem"),
        "CHAINRULE_TOKEN_FILE": "/run/token",
    }


def test_a_server_of_the_environment_is_not_given_another_servers_token(folder: Path) -> None:
    environment = {"CHAINRULE_SERVER": "127.0.0.1:9"}
    use_connection(environment, folder, None)
    assert environment == {"CHAINRULE_SERVER": "127.0.0.1:9"}


def test_a_named_connection_replaces_all_that_belongs_to_another_server(folder: Path) -> None:
    environment = {"CHAINRULE_SERVER": "a:1", "CHAINRULE_TOKEN": "x" * 20, "CHAINRULE_TLS_CA": "ca", "PATH": "/bin"}
    use_connection(environment, folder, "home")
    assert environment == {"CHAINRULE_SERVER": "127.0.0.1:7", "PATH": "/bin"}


def test_two_variables_that_name_a_server_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ConnectionFileError, match="set one of them"):
        use_connection({"CHAINRULE_SERVER": "a:1", "CHAINRULE_CONNECTION": "lab"}, folder, None)


def test_the_file_is_where_the_environment_says() -> None:
    assert config_path({}, Path("/home/a")) == Path("/home/a/.config/chainrule/config.toml")
    assert config_path({"XDG_CONFIG_HOME": "/x"}, Path("/home/a")) == Path("/x/chainrule/config.toml")
    assert config_path({"CHAINRULE_CONFIG": "/c.toml"}, Path("/home/a")) == Path("/c.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("default = 1", "default: there is no connection 1"),
        ('default = "la"\n[connections.lab]\nserver = "a:1"', "did you mean 'lab'"),
        ("[connections.lab]\nsever = 'a:1'", "sever: unknown key; did you mean 'server'"),
        ("[connections.lab]\ntls_ca = 'a'", "has no server"),
        ("[connections.lab]\nserver = 1", "server: must be a string"),
        ("connections = 1", "must be tables"),
        ("[connections]\nlab = 1", "must be a table"),
        ("[connections.lab]\nserver = 'a:1'\ntoken = 'secret'", "token: unknown key; did you mean 'token_file'"),
        ("=", "is no TOML"),
    ],
)
def test_a_file_that_makes_no_sense_says_where(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConnectionFileError, match=r"config\.toml") as caught:
        ConnectionFile.read(tmp_path / "config.toml")
    assert message in str(caught.value)


def test_a_command_talks_to_the_server_of_its_connection(
    fake_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text(f'[connections.lab]\nserver = "{fake_server.address}"\n')
    monkeypatch.setenv("CHAINRULE_CONFIG", str(tmp_path / "config.toml"))
    # `run` writes into the environment; the fixture puts it back.
    monkeypatch.setenv("CHAINRULE_SERVER", "127.0.0.1:1")
    assert run(["status", "abcd", "--connection", "lab"]) == 0
    assert fake_server.job.job_id in capsys.readouterr().out
    assert run(["status", "abcd", "--connection", "lap"]) == 2
    assert "did you mean 'lab'?" in capsys.readouterr().err


def test_an_option_holds_against_a_connection(
    fake_server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHAINRULE_CONFIG", str(config_path({}, folder)))
    monkeypatch.setenv("CHAINRULE_SERVER", "127.0.0.1:1")
    assert run(["status", "abcd", "--connection", "home", "--server", fake_server.address]) == 0
