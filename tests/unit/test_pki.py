"""Certificates: who they are for, how long, and that no key can be read by others."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.pki import Authority, PkiError, now_utc, write_private
from broker.pki_cli import pki
from ddnn.errors import ConfigError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path):
    return Authority.create(tmp_path / "ca", "test", NOW)


def parsed(issued):
    return x509.load_pem_x509_certificate(issued.certificate)


def test_node_can_only_be_a_client_and_a_broker_only_a_server(authority):
    node = parsed(authority.issue("s1.device-0", NOW))
    broker = parsed(authority.issue("s1.broker", NOW, kind="broker", hosts=["b.local", "10.0.0.1"]))
    for certificate, purpose in (
        (node, ExtendedKeyUsageOID.CLIENT_AUTH),
        (broker, ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        use = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(use) == [purpose]
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert not basic.ca
        certificate.verify_directly_issued_by(authority.certificate)
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["b.local"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]


def test_certificate_never_outlives_the_authority(tmp_path):
    authority = Authority.create(tmp_path / "ca", "test", NOW, days=100)
    node = parsed(authority.issue("s1.device-0", NOW, days=3650))
    assert node.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_expired_authority_issues_nothing(authority):
    with pytest.raises(PkiError, match="expired"):
        authority.issue("s1.device-0", NOW + timedelta(days=4000))


@pytest.mark.parametrize(
    "host", ["", "a b", "*.local", "b.local/x", "bücher.de", "-" * 64, "b..local", "b.local\n"]
)
def test_host_name_that_is_none_is_refused(authority, host):
    with pytest.raises(ConfigError):
        authority.issue("s1.broker", NOW, kind="broker", hosts=[host])


def test_broker_without_a_name_is_refused(authority):
    with pytest.raises(PkiError, match="--host"):
        authority.issue("s1.broker", NOW, kind="broker")


def test_every_key_is_for_its_owner_alone(authority, tmp_path):
    write_private(tmp_path / "x" / "node.key", authority.issue("s1.device-0", NOW).key)
    for path in (tmp_path / "x" / "node.key", authority.folder / "ca.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700


def test_second_authority_in_one_folder_is_refused(authority):
    with pytest.raises(PkiError, match="already"):
        Authority.create(authority.folder, "test", NOW)


def test_revoked_certificate_is_on_the_list_and_its_successor_is_not(authority):
    first = parsed(authority.issue("s1.device-0", NOW)).serial_number
    authority.revoke("s1.device-0", NOW)
    second = parsed(authority.issue("s1.device-0", NOW + timedelta(days=1))).serial_number
    crl = x509.load_pem_x509_crl((authority.folder / "crl.pem").read_bytes())
    assert [entry.serial_number for entry in crl] == [first]
    assert crl.is_signature_valid(authority.certificate.public_key())
    states = {record.serial: record.state(NOW) for record in authority.records()}
    assert states == {first: "revoked", second: "valid"}


def test_list_of_revoked_ones_does_not_run_out_before_the_authority(authority):
    crl = x509.load_pem_x509_crl((authority.folder / "crl.pem").read_bytes())
    assert crl.next_update_utc == authority.certificate.not_valid_after_utc


def test_revoking_twice_or_a_stranger_is_an_error(authority):
    authority.issue("s1.device-0", NOW)
    authority.revoke("s1.device-0", NOW)
    for identity in ("s1.device-0", "s1.device-1"):
        with pytest.raises(PkiError, match="to revoke"):
            authority.revoke(identity, NOW)


@pytest.mark.parametrize(
    ("days_later", "state"), [(0, "valid"), (334, "valid"), (336, "expiring"), (365, "expired")]
)
def test_state_of_a_certificate(authority, days_later, state):
    authority.issue("s1.device-0", NOW)
    (record,) = authority.records()
    assert record.state(NOW + timedelta(days=days_later)) == state


def test_key_with_a_password_needs_it(tmp_path):
    Authority.create(tmp_path / "ca", "test", NOW, password=b"secret")
    assert b"ENCRYPTED" in (tmp_path / "ca" / "ca.key").read_bytes()
    for wrong in (None, b"other"):
        with pytest.raises(PkiError, match="password"):
            Authority(tmp_path / "ca", wrong)
    assert Authority(tmp_path / "ca", b"secret").records() == []


def run(*args):
    return CliRunner().invoke(pki, [str(arg) for arg in args])


def test_commands_from_init_to_revoke(tmp_path):
    ca, out = tmp_path / "ca", tmp_path / "node"
    assert run("init", "--ca", ca).exit_code == 0
    assert run("issue", "s1.device-3", "--ca", ca, "--out", out).exit_code == 0
    first = (out / "node.crt").read_bytes()
    renewed = run("renew", "s1.device-3", "--ca", ca, "--out", out, "--revoke-old")
    assert "revoked 1" in renewed.output
    assert (out / "node.crt").read_bytes() != first
    listed = run("list", "--ca", ca).output.splitlines()
    assert [line.split()[:2] for line in sorted(listed)] == [
        ["s1.device-3", "revoked"],
        ["s1.device-3", "valid"],
    ]
    assert run("revoke", "s1.device-3", "--ca", ca).exit_code == 0
    assert "valid" not in run("list", "--ca", ca).output


def test_no_command_prints_a_key(tmp_path):
    ca = tmp_path / "ca"
    outputs = [
        run("init", "--ca", ca),
        run("issue", "s1.broker", "--ca", ca, "--out", tmp_path / "b", "--host", "b.local"),
        run("list", "--ca", ca),
        run("list", "--ca", ca, "--json"),
    ]
    for result in outputs:
        assert result.exit_code == 0
        assert "PRIVATE" not in result.output
        assert len(result.output.splitlines()) < 15


def test_authority_that_is_missing_says_how_to_make_one(tmp_path):
    with pytest.raises(PkiError, match="ddnn pki init"):
        Authority(tmp_path)


def test_now_has_whole_seconds():
    assert now_utc().microsecond == 0
