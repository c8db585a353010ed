"""TLS settings and files: mistakes are found at the start, renewed files are taken later."""

import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.pki import Authority, now_utc, write_private
from ddnn.config import convert, read_settings
from ddnn.errors import ConfigError
from ddnn.mqtt import Client
from ddnn.network_thread import BufferedSocket
from ddnn.tls import Credentials, TlsFiles, explain, read_certificate
from edge_gateway.service import GatewaySettings

NOW = now_utc()


@pytest.fixture
def authority(tmp_path):
    return Authority.create(tmp_path / "ca", "test", NOW)


@pytest.fixture
def files(authority, tmp_path):
    return place(tmp_path / "node", authority)


def place(folder, authority, identity="s1.device-0", **options):
    issued = authority.issue(identity, options.pop("now", NOW), **options)
    write_private(folder / "node.key", issued.key)
    write_private(folder / "node.crt", issued.certificate)
    write_private(folder / "ca.crt", (authority.folder / "ca.crt").read_bytes())
    return TlsFiles(folder / "ca.crt", folder / "node.crt", folder / "node.key")


def test_certificate_is_read_with_its_name_and_days(files):
    certificate = read_certificate(files.cert)
    assert certificate.name == "s1.device-0"
    assert certificate.not_after == NOW + timedelta(days=365)


def test_nothing_below_tls_1_2(files):
    assert Credentials(files).context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_missing_file_is_named(files, missing):
    path = getattr(files, missing)
    path.unlink()
    with pytest.raises(ConfigError, match=rf"{path}.*No such file"):
        Credentials(files)


@pytest.mark.parametrize("broken", ["ca", "cert", "key"])
def test_file_that_is_no_pem_is_named(files, broken):
    path = getattr(files, broken)
    path.write_text("hello")
    with pytest.raises(ConfigError, match=str(path)):
        Credentials(files)


def test_key_of_another_certificate_is_said_to_be_one(files, authority):
    files.key.write_bytes(authority.issue("s1.device-1", NOW).key)
    with pytest.raises(ConfigError, match="belongs to another certificate"):
        Credentials(files)


def test_encrypted_key_is_refused_without_asking_on_the_terminal(tmp_path):
    encrypted = Authority.create(tmp_path / "ca", "test", NOW, password=b"x")
    files = place(tmp_path / "node", encrypted)
    files.key.write_bytes((encrypted.folder / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="encrypted"):
        Credentials(files)


def test_client_with_a_missing_file_is_an_error_at_its_start(files):
    files.cert.unlink()
    with pytest.raises(ConfigError, match="tls_cert"):
        Client("localhost", 0, "x", tls=files)


def test_renewed_files_are_taken(files, authority):
    credentials = Credentials(files)
    assert not credentials.refresh()
    place(files.cert.parent, authority, now=NOW + timedelta(days=1))
    context = credentials.context
    assert credentials.refresh()
    assert credentials.context is context
    assert credentials.certificate.not_after == NOW + timedelta(days=366)
    assert not credentials.refresh()


def test_half_renewed_files_leave_the_old_ones_in_use(files, authority):
    credentials = Credentials(files)
    write_private(files.key, authority.issue("s1.device-0", NOW).key)
    with pytest.raises(ConfigError):
        credentials.refresh()
    assert credentials.certificate.name == "s1.device-0"
    # The other half comes later.
    place(files.cert.parent, authority)
    assert credentials.refresh()


@pytest.mark.parametrize(
    ("days", "said"), [(100, None), (29, "in 29 days"), (0, "expired"), (-1, "expired")]
)
def test_note_of_a_certificate_that_ends(files, days, said):
    certificate = read_certificate(files.cert)
    note = certificate.note(certificate.not_after - timedelta(days=days))
    assert (note is None) if said is None else said in note


def test_note_of_a_clock_that_is_not_set(files):
    assert "clock" in read_certificate(files.cert).note(datetime(1970, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("cert", "key"), [("a", ""), ("", "b")], ids=["without key", "without certificate"]
)
def test_half_an_identity_is_refused(cert, key):
    with pytest.raises(ConfigError, match="belong together"):
        TlsFiles.of("ca", cert, key)


def test_certificate_without_a_ca_is_refused():
    with pytest.raises(ConfigError, match="tls_ca"):
        TlsFiles.of("", "a", "b")


def test_no_setting_means_no_tls():
    assert TlsFiles.of("", "", "") is None


def test_credential_of_systemd(monkeypatch, tmp_path):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    files = TlsFiles.of("ca.crt", "node.crt", "credential:node.key")
    assert files.key == tmp_path / "node.key"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigError, match="LoadCredential"):
        TlsFiles.of("ca.crt", "node.crt", "credential:node.key")


def test_files_named_in_a_settings_file_lie_beside_it(tmp_path):
    (tmp_path / "gateway.toml").write_text(
        f'tls_ca = "ca.crt"\ntls_cert = "{os.sep}abs{os.sep}node.crt"\n'
        'tls_key = "credential:node.key"\nstore = "here"\n'
    )
    values = read_settings(tmp_path / "gateway.toml", GatewaySettings)
    settings = convert(values, GatewaySettings)
    assert Path(settings.tls_ca) == tmp_path / "ca.crt"
    assert Path(settings.tls_cert) == Path("/abs/node.crt")
    assert settings.tls_key == "credential:node.key"
    assert settings.store == "here"


def test_every_error_of_a_socket_is_explained():
    for error in (
        TimeoutError(),
        ConnectionRefusedError(),
        OSError(113, "No route"),
        ssl.SSLError(),
    ):
        text, lasting = explain(error)
        assert text
        assert not lasting


def test_ended_connection_hands_out_nothing_that_is_still_encrypted(authority, files, tmp_path):
    broker = place(tmp_path / "broker", authority, "broker", kind="broker", hosts=["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(broker.cert, broker.key)
    mine, peer = socket.socketpair()
    accepted = []
    thread = threading.Thread(
        target=lambda: accepted.append(context.wrap_socket(peer, server_side=True))
    )
    thread.start()
    secure = Credentials(files).context.wrap_socket(mine, server_hostname="localhost")
    thread.join()
    with secure, accepted[0] as says:
        says.sendall(b"abc")
        sock = BufferedSocket(secure)
        sock.end()
        assert sock.recv(100) == b"abc"
        assert sock.recv(100) == b""
