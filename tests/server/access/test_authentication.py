"""Who may call what: tokens, certificates and roles, over a real socket."""

from __future__ import annotations

import datetime
import itertools
import logging
import os
import queue
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import chainrule.security.certificates
from chainrule import Credentials, Tls
from chainrule.client.blocking.client import Client
from chainrule.errors import CredentialsError, NotAllowed, NotAuthenticated, ServerError, ServerUnavailable
from chainrule.security.tokens import ROLES, Holder, TokenError, holder_of, new_token, read_holders, sha256_of
from chainrule.transport.wire_codec import open_train
from chainrule.v1 import job_service_pb2 as api
from chainrule.v1 import job_service_pb2_grpc
from chainrule.v1 import worker_service_pb2 as worker_pb
from chainrule_server.access.authentication import Authentication, TokenFile
from chainrule_server.access.listening import CannotListen, ReloadingCertificate, TlsFiles, check_exposure, tls_files
from chainrule_server.access.permissions import PERMISSIONS, roles_of
from tests.server.in_process import RunningServer, add_data_sets, prepared, refusal, regression_spec, running_server

TOKENS = {role: new_token(secrets.token_urlsafe) for role in ROLES}
TIMEOUT_S = 60.0


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    chainrule.security.certificates.create(folder, hosts=[], days=2, now=now())
    return folder


def tokens_file(folder: Path) -> Path:
    path = folder / "tokens"
    path.write_text("".join(f"{role}-1 {role} {sha256_of(token)}  # theirs\n" for role, token in TOKENS.items()))
    return path


@contextmanager
def guarded(folder: Path, certificate: TlsFiles | None = None, *, has_tokens: bool = True) -> Iterator[RunningServer]:
    tokens = TokenFile(tokens_file(folder)) if has_tokens else None
    secured = None if certificate is None else ReloadingCertificate(certificate, now)
    with running_server(folder, interceptors=[Authentication(tokens)], certificate=secured) as running:
        yield running


@pytest.fixture
def tokens_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    """A server in the clear that asks for tokens."""
    add_data_sets(monkeypatch)
    with guarded(tmp_path) as running:
        yield running


def files_of(folder: Path, *, client_ca: Path | None = None) -> TlsFiles:
    return TlsFiles(folder / "server.pem", folder / "server.key", client_ca)


def tls_of(folder: Path, name: str | None = None) -> Tls:
    if name is None:
        return Tls(folder / "ca.pem")
    return Tls(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


# Tokens


def test_a_call_without_a_token_is_unauthenticated_and_told_what_to_do(tokens_server: RunningServer) -> None:
    code, _, reason = refusal(lambda: tokens_server.jobs.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    with Client(tokens_server.address) as client, pytest.raises(NotAuthenticated, match="CHAINRULE_TOKEN_FILE"):
        client.list_jobs()


@pytest.mark.parametrize("shown", ["Bearer nonsense", "Basic abc", "Bearer", "", "Bearer " + "x" * 5000])
def test_what_is_no_token_of_this_server_is_unauthenticated(tokens_server: RunningServer, shown: str) -> None:
    metadata = [("authorization", shown)]
    call = tokens_server.jobs.ListJobs
    code, _, _ = refusal(lambda: call(api.ListJobsRequest(), timeout=TIMEOUT_S, metadata=metadata))
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_two_tokens_in_a_call_are_none(tokens_server: RunningServer) -> None:
    metadata = [("authorization", f"Bearer {TOKENS['admin']}"), ("authorization", f"Bearer {TOKENS['client']}")]
    call = tokens_server.jobs.ListJobs
    code, _, _ = refusal(lambda: call(api.ListJobsRequest(), timeout=TIMEOUT_S, metadata=metadata))
    assert code == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", [method for method in PERMISSIONS if method.startswith("/chainrule.")])
def test_each_role_is_let_in_where_the_table_says_and_nowhere_else(
    tokens_server: RunningServer, role: str, method: str
) -> None:
    """With a request that can't be read: whoever is let in is told so, who isn't never gets that far."""
    call = tokens_server.channel.stream_stream(method, request_serializer=None, response_deserializer=None)
    responses = call(iter([b"\xff"]), timeout=TIMEOUT_S, metadata=[("authorization", f"Bearer {TOKENS[role]}")])
    with pytest.raises(grpc.RpcError) as caught:
        list(responses)
    is_let_in = caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert is_let_in or caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert is_let_in == (role in roles_of(method))


def test_nothing_of_a_caller_that_nobody_knows_is_parsed(tokens_server: RunningServer) -> None:
    for method in PERMISSIONS:
        call = tokens_server.channel.stream_stream(method, request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff"]), timeout=TIMEOUT_S))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, method


def test_health_needs_no_token(tokens_server: RunningServer) -> None:
    with Client(tokens_server.address) as client:
        assert set(client.health().values()) == {"SERVING"}


def test_an_observer_sees_jobs_and_changes_none(tokens_server: RunningServer) -> None:
    with Client(tokens_server.address, credentials=Credentials(token=TOKENS["client"])) as client:
        job = client.create_job(regression_spec())
    with Client(tokens_server.address, credentials=Credentials(token=TOKENS["observer"])) as observer:
        assert [each.job_id for each in observer.list_jobs()] == [job.job_id]
        assert next(observer.watch_job(job.job_id)).job_id == job.job_id
        with pytest.raises(NotAllowed, match=r"'observer-1' has the role observer; CancelJob is for admin and client"):
            observer.cancel_job(job.job_id)
    with Client(tokens_server.address, credentials=Credentials(token=TOKENS["admin"])) as admin:
        admin.cancel_job(job.job_id)


def test_a_token_taken_back_or_added_counts_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    time_s = 0.0
    path = tokens_file(tmp_path)
    file = TokenFile(path, clock_s=lambda: time_s)
    assert holder_of(TOKENS["client"], file.holders()) is not None
    path.write_text(f"new client {sha256_of(TOKENS['worker'])}\n")
    assert len(file.holders()) == 4  # it has been looked at within the last second
    time_s = 1.0
    assert holder_of(TOKENS["client"], file.holders()) is None
    assert holder_of(TOKENS["worker"], file.holders()) == Holder("new", "client", sha256_of(TOKENS["worker"]))
    path.write_text("new client nonsense\n")
    os.utime(path, (0, 0))
    time_s = 2.0
    assert [holder.name for holder in file.holders()] == ["new"]
    assert "the tokens stay as they were" in caplog.text


def test_with_the_tokens_file_every_token_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    time_s = 0.0
    path = tokens_file(tmp_path)
    file = TokenFile(path, clock_s=lambda: time_s)
    path.unlink()
    time_s = 1.0
    assert file.holders() == ()
    assert "no token holds" in caplog.text
    tokens_file(tmp_path)
    time_s = 2.0
    assert len(file.holders()) == len(TOKENS)


@pytest.mark.parametrize("how", ["its line", "the file"])
@pytest.mark.parametrize("stream", ["Train", "WatchJob"])
def test_a_token_that_is_taken_back_ends_the_streams_that_are_open(
    tokens_server: RunningServer, stream: str, how: str
) -> None:
    requests: queue.SimpleQueue[worker_pb.TrainRequest | None] = queue.SimpleQueue()
    if stream == "Train":
        metadata = [("authorization", f"Bearer {TOKENS['worker']}")]
        requests.put(worker_pb.TrainRequest(hello=worker_pb.Hello(name="w")))
        call = open_train(tokens_server.channel)(iter(requests.get, None), metadata=metadata, timeout=TIMEOUT_S)
    else:
        metadata = [("authorization", f"Bearer {TOKENS['client']}")]
        job = tokens_server.submit(prepared(regression_spec()))
        call = tokens_server.jobs.WatchJob(api.WatchJobRequest(job_id=job.job_id), metadata=metadata, timeout=TIMEOUT_S)
    next(call)
    path = tokens_server.folder / "tokens"
    if how == "the file":
        path.unlink()
    else:
        path.write_text(f"new admin {sha256_of(TOKENS['admin'])}\n")
    with pytest.raises(grpc.RpcError) as caught:
        for _ in call:
            pass
    requests.put(None)
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert tokens_server.run(lambda: tokens_server.scheduler.workers.joined) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alice client", "line 1: must be 'NAME ROLE SHA256'"),
        (f"# a remark\n\nalice king {'0' * 64}", "line 3: a role is one of"),
        (f"a/b client {'0' * 64}", "line 1: a name has"),
        ("alice client " + "0" * 63, "line 1: a SHA-256 has 64"),
        (f"alice client {'0' * 64}\nbob client {'0' * 64}", "line 2: the name or the token of 'alice'"),
        (f"alice client {'0' * 64}\nalice admin {'1' * 64}", "line 2: the name or the token of 'alice'"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_number(text: str, said: str) -> None:
    with pytest.raises(TokenError, match=re.escape(said)):
        read_holders(text)


def test_no_token_is_ever_logged_or_shown(
    tokens_server: RunningServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    token = new_token(secrets.token_urlsafe)
    with (
        Client(tokens_server.address, credentials=Credentials(token=token)) as client,
        pytest.raises(NotAuthenticated) as caught,
    ):
        client.list_jobs()
    assert "refused" in caplog.text
    monkeypatch.setenv("CHAINRULE_TOKEN", "short")
    with pytest.raises(CredentialsError) as wrong:
        Client(tokens_server.address)
    for text in (caplog.text, repr(caught.value), repr(wrong.value)):
        assert token not in text
        assert "'short'" not in text


def test_a_token_never_goes_over_a_network_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CredentialsError, match=r"in the clear; use TLS"):
        Client("db.example:50051", credentials=Credentials(token=TOKENS["client"]))
    monkeypatch.setenv("CHAINRULE_TOKEN", TOKENS["client"])
    monkeypatch.setenv("CHAINRULE_INSECURE", "1")
    Client("db.example:50051").close()


# Listening


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "db.example"])  # noqa: S104
def test_beyond_this_machine_nobody_listens_without_tls_and_authentication(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    for has_tls, has_authentication in ((False, False), (True, False), (False, True)):
        with pytest.raises(CannotListen, match="--insecure"):
            check_exposure(host, has_tls=has_tls, has_authentication=has_authentication, insecure=False)
    assert caplog.text == ""
    check_exposure(host, has_tls=True, has_authentication=True, insecure=False)
    check_exposure(host, has_tls=False, has_authentication=False, insecure=True)
    assert "whoever reaches it can use it" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_this_machine_neither_is_needed(host: str) -> None:
    check_exposure(host, has_tls=False, has_authentication=False, insecure=False)


def test_half_of_the_tls_files_is_no_tls(tmp_path: Path) -> None:
    assert tls_files(None, None, None) is None
    for given in ((tmp_path, None, None), (None, tmp_path, None), (None, None, tmp_path)):
        with pytest.raises(CannotListen, match="both --tls-certificate and --tls-key"):
            tls_files(*given)


# TLS


def failure(address: str, tls: Tls | None, token: str | None = None) -> str:
    credentials = Credentials(tls, token)
    with Client(address, credentials=credentials, timeout_s=TIMEOUT_S) as client, pytest.raises(ServerError) as caught:
        client.list_jobs()
    assert isinstance(caught.value, ServerUnavailable)
    return str(caught.value)


def test_a_call_over_tls_is_answered_and_each_mistake_says_what_it_is(
    tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    chainrule.security.certificates.create(other, hosts=[], days=2, now=now())
    with guarded(tmp_path, files_of(certificates)) as server:
        with Client(server.address, credentials=Credentials(tls_of(certificates), TOKENS["client"])) as client:
            assert client.list_jobs() == []
        assert "speaks TLS; name its authority's certificate (--tls-ca" in failure(server.address, None)
        wrong = failure(server.address, tls_of(other))
        assert "is refused" in wrong
        assert "is --tls-ca the file of the authority that made it?" in wrong
        for variable, name in (("CA", "ca.pem"), ("CERTIFICATE", "client.pem"), ("KEY", "client.key")):
            monkeypatch.setenv(f"CHAINRULE_TLS_{variable}", str(certificates / name))
        monkeypatch.setenv("CHAINRULE_TOKEN", TOKENS["client"])
        with Client(server.address) as client:
            assert client.list_jobs() == []
    monkeypatch.undo()
    with guarded(tmp_path) as server:
        said = failure(server.address, tls_of(certificates), TOKENS["client"])
        assert "speaks no TLS" in said


def test_a_certificate_for_another_host_or_of_another_time_is_refused(tmp_path: Path) -> None:
    from cryptography import x509

    folder = tmp_path / "c"
    chainrule.security.certificates.create(folder, hosts=[], days=1, now=now())
    authority = chainrule.security.certificates._load(folder, "ca")
    names = [x509.DNSName("db.example")]
    pair = chainrule.security.certificates._issued(authority, "server", names, now=now(), days=1)
    chainrule.security.certificates._store(folder, "server", pair)
    with guarded(tmp_path, files_of(folder)) as server:
        said = failure(server.address, tls_of(folder))
        assert "mismatch" in said
        assert "connect by a name that it was made for" in said
    # The server itself refuses to start with it; one that has run for long goes on with it.
    chainrule.security.certificates.renew(folder, hosts=["localhost"], days=1, now=now() - datetime.timedelta(days=2))
    with pytest.raises(CredentialsError, match="has expired"):
        ReloadingCertificate(files_of(folder), now)
    old = ReloadingCertificate(files_of(folder), lambda: now() - datetime.timedelta(days=1.5))
    with running_server(tmp_path, certificate=old) as server:
        said = failure(server.address, tls_of(folder))
        assert "has expired" in said
        assert "renewed where the server runs" in said


def connected(server: RunningServer, certificates: Path, name: str) -> Client:
    return Client(server.address, credentials=Credentials(tls_of(certificates, name)))


def test_mutual_tls_knows_the_role_by_the_certificate(tmp_path: Path, certificates: Path) -> None:
    other = tmp_path / "other"
    chainrule.security.certificates.create(other, hosts=[], days=2, now=now())
    files = files_of(certificates, client_ca=certificates / "ca.pem")
    with guarded(tmp_path, files, has_tokens=False) as server:
        assert "wants a client's certificate" in failure(server.address, tls_of(certificates))
        stranger = Tls(certificates / "ca.pem", other / "client.pem", other / "client.key")
        assert "refuses this client's certificate" in failure(server.address, stranger)
        with connected(server, certificates, "client") as client:
            assert client.list_jobs() == []
        with (
            Client(server.address, credentials=Credentials(tls_of(certificates, "worker"))) as worker,
            pytest.raises(NotAllowed),
        ):
            worker.list_jobs()
        # The server's own names no role.
        with (
            Client(server.address, credentials=Credentials(tls_of(certificates, "server"))) as nobody,
            pytest.raises(ServerError),
        ):
            nobody.list_jobs()


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "c"
    chainrule.security.certificates.create(folder, hosts=[], days=2, now=now())
    certificate = ReloadingCertificate(files_of(folder), now)
    with running_server(tmp_path, certificate=certificate) as server:
        with Client(server.address, credentials=Credentials(tls_of(folder))) as client:
            assert client.list_jobs() == []
        chainrule.security.certificates.renew(folder, hosts=[], days=90, now=now())
        with Client(server.address, credentials=Credentials(tls_of(folder))) as client:
            assert client.list_jobs() == []
        assert "was read again" in caplog.text
        (folder / "server.key").write_text("nonsense")
        with Client(server.address, credentials=Credentials(tls_of(folder))) as client:
            assert client.list_jobs() == []
        assert "stays as it was" in caplog.text


def test_an_asyncio_channel_shows_the_token_too(tmp_path: Path, certificates: Path) -> None:
    import asyncio

    from chainrule.security.secure_channel import open_aio_channel

    async def calls(address: str) -> None:
        credentials = Credentials(tls_of(certificates), TOKENS["client"])
        async with open_aio_channel(address, credentials, []) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            response = await stub.ListJobs(api.ListJobsRequest(), timeout=TIMEOUT_S)
            assert list(response.jobs) == []
            with pytest.raises(grpc.RpcError) as caught:
                async for _ in stub.WatchJob(api.WatchJobRequest(job_id="none"), timeout=TIMEOUT_S):
                    pass
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    with guarded(tmp_path, files_of(certificates)) as server:
        asyncio.run(calls(server.address))


def test_the_table_of_the_documentation_is_the_one_that_the_server_goes_by() -> None:
    lines = (Path(__file__).resolve().parents[3] / "docs" / "security.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    start = next(number for number, row in enumerate(rows) if row[0] == "call")
    roles = rows[start][1:]
    told = {
        method: {role for role, cell in zip(roles, row[1:], strict=True) if cell == "yes"}
        for row in itertools.takewhile(lambda row: len(row) == len(rows[start]), rows[start + 2 :])
        for method in row[0].removesuffix(" (health)").split(", ")
    }
    assert roles == list(ROLES)
    assert told.pop("Check") == told.pop("List") == told.pop("Watch") == set()
    assert told == {method.rpartition("/")[2]: set(allowed) for method, allowed in PERMISSIONS.items()}
