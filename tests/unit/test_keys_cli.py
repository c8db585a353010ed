"""`ddnn keys` as an operator uses it, and the registry of what was published."""

import stat

import pytest
from click.testing import CliRunner

from ddnn.errors import BundleError, ConfigError, DdnnError
from ddnn.key_files import check_keys, read_keys, read_secret, trust_of
from ddnn.loopback import is_loopback
from ddnn.store import read_folder, write_folder
from device_agent.service import DeviceSettings
from tests import bundles
from tests.signing import KEY, signed
from training.keys import keys
from training.publish import with_version
from training.registry import Registry


def ddnn_keys(*args):
    result = CliRunner().invoke(keys, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def key(tmp_path):
    ddnn_keys("new", tmp_path / "k")
    return tmp_path / "k"


def test_secret_key_is_its_owners_alone(key):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = read_secret(key)
    assert key.with_name("k.pub").read_text().strip() == made.public_key.hex()
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(key)


def test_key_is_never_overwritten(key):
    before = key.read_text()
    with pytest.raises(ConfigError, match="never overwritten"):
        ddnn_keys("new", key)
    assert key.read_text() == before


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31])
def test_file_that_holds_no_key_is_an_error(tmp_path, text):
    path = tmp_path / "k"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no signing key"):
        read_secret(path)


def test_trust_list_revoke(key, tmp_path):
    trusted = tmp_path / "etc" / "trusted.json"
    ddnn_keys(
        "trust", trusted, f"{key}.pub", "--name", "me", "--site", "s1", "--until", "2027-12-31"
    )
    ddnn_keys("trust", trusted, KEY.public_key.hex())
    listed = ddnn_keys("list", trusted).splitlines()
    assert "(me)" in listed[0]
    assert "until 2027-12-31  sites s1" in listed[0]
    assert listed[1] == f"{KEY.key_id}  any site"
    ddnn_keys("revoke", trusted, KEY.key_id, "--reason", "lost")
    assert "REVOKED: lost" in ddnn_keys("list", trusted)
    with pytest.raises(ConfigError, match="was revoked"):
        ddnn_keys("trust", trusted, KEY.public_key.hex())
    with pytest.raises(ConfigError, match="has no key"):
        ddnn_keys("revoke", trusted, "0" * 16)
    assert len(read_keys(trusted).keys) == 2


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--until", "soon", "not a day"),
        ("--site", "a/b", "site name"),
    ],
)
def test_trust_with_a_wrong_option_says_what_is_wrong(tmp_path, option, value, reason):
    with pytest.raises(ConfigError, match=reason):
        ddnn_keys("trust", tmp_path / "t", KEY.public_key.hex(), option, value)
    with pytest.raises(ConfigError, match="neither a"):
        ddnn_keys("trust", tmp_path / "t", "nonsense")


def test_sign_adds_signatures_and_leaves_the_id(key, tmp_path):
    ddnn_keys("new", tmp_path / "next")
    write_folder(tmp_path / "b", bundles.bundle())
    for each in (key, tmp_path / "next", key):
        ddnn_keys("sign", tmp_path / "b", "--key", each)
    found = read_folder(tmp_path / "b")
    assert found.bundle_id == bundles.bundle().bundle_id
    assert {s.keyid for s in found.signatures} == {
        read_secret(key).key_id, read_secret(tmp_path / "next").key_id,
    }  # fmt: skip
    assert len(found.signatures) == 2


def test_sign_with_limits_makes_another_bundle_without_the_old_signatures(key, tmp_path):
    write_folder(tmp_path / "b", signed(bundles.bundle()))
    ddnn_keys("sign", tmp_path / "b", "--key", key, "--expires", "2027-12-31", "--site", "s1",
              "--device-machine", "aarch64", "--min-version", "0.1.0")  # fmt: skip
    found = read_folder(tmp_path / "b")
    terms = found.manifest.terms
    assert (terms.sites, terms.hardware, terms.min_version) == (
        ("s1",), {"device": ("aarch64",)}, "0.1.0",
    )  # fmt: skip
    assert f"{terms.expires:%Y-%m-%d %H:%M:%S}" == "2027-12-31 23:59:59"
    assert [s.keyid for s in found.signatures] == [read_secret(key).key_id]


def test_rollback_of_an_expired_bundle_needs_another_date(key, tmp_path):
    write_folder(tmp_path / "b", bundles.bundle())
    ddnn_keys("sign", tmp_path / "b", "--key", key, "--expires", "2020-01-01")
    with pytest.raises(BundleError, match="--expires"):
        with_version(read_folder(tmp_path / "b"), 9)
    again = with_version(read_folder(tmp_path / "b"), 9, read_folder(tmp_path / "b").manifest
                         .terms.expires.replace(year=2090))  # fmt: skip
    assert (again.manifest.version, again.manifest.terms.expires.year) == (9, 2090)
    assert again.signatures == ()


# -- what the settings say of trust --------------------------------------------------------------


def settings(**fields):
    return DeviceSettings(camera=0, source="replay:x", **fields)


def note(**fields):
    return trust_of(settings(**fields), "s1", "device").note


def test_node_without_trusted_keys_believes_only_a_broker_of_its_own_machine():
    assert "on this machine" in note(broker="127.0.0.1")
    assert "refused" in note(broker="192.168.0.7")
    assert "allow_unsigned" in note(broker="192.168.0.7", allow_unsigned=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.3.2.1", "::1"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.evil.org", "broker", "127.0.0.1.nip.io"])
def test_not_loopback(host):
    assert not is_loopback(host)


def test_trusted_keys_that_cannot_be_read_stop_a_node_at_its_start(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read trusted keys from .*nowhere"):
        check_keys(settings(trusted_keys=str(tmp_path / "nowhere")))


def test_trusted_keys_that_are_damaged_later_refuse_everything(key, tmp_path):
    trusted = tmp_path / "t"
    ddnn_keys("trust", trusted, f"{key}.pub")
    trust = trust_of(settings(trusted_keys=str(trusted)), "s1", "device")
    assert trust.note is None
    trusted.write_text("{")
    with pytest.raises(BundleError, match="cannot read trusted keys"):
        trust.admit(signed(bundles.bundle(), read_secret(key)).payload, 1.8e9)


# -- registry ------------------------------------------------------------------------------------


def test_registry_finds_by_version_and_by_id(tmp_path):
    registry = Registry(tmp_path)
    made = [bundles.bundle(version=v, marker=b"%d" % v) for v in (1, 2, 10)]
    for bundle in made:
        registry.keep("s1", bundle)
    assert [entry.version for entry in registry.entries("s1")] == [1, 2, 10]
    assert registry.find("s1", "10") == made[2]
    assert registry.find("s1", made[0].bundle_id[:10]) == made[0]
    assert registry.entries("s2") == []
    with pytest.raises(DdnnError, match="there are: 1 "):
        registry.find("s1", "7")
