"""Why there is no connection: found out once, said once, and known to last or not."""

import logging
import ssl

import pytest

from ddnn.trouble import Trouble

REVOKED = ssl.SSLError(1, "alert")
REVOKED.reason = "SSLV3_ALERT_CERTIFICATE_REVOKED"


@pytest.fixture
def said(caplog):
    # The simulation silences `ddnn` for the whole process.
    caplog.set_level(logging.WARNING, logger="ddnn.trouble")
    return lambda: [record.getMessage() for record in caplog.records]


def test_outage_is_said_once_however_many_attempts_fail(said):
    trouble = Trouble("b:1883", None)
    for _ in range(100):
        trouble.failed(ConnectionRefusedError())
    assert len(said()) == 1
    assert "b:1883" in said()[0]
    assert not trouble.settled.is_set()


def test_next_outage_is_said_again(said):
    trouble = Trouble("b:1883", None)
    for _ in range(2):
        trouble.failed(ConnectionRefusedError())
        trouble.over()
        assert trouble.text is None
    assert len(said()) == 2


def test_other_reason_in_the_same_outage_is_said(said):
    trouble = Trouble("b:8883", lambda: None)
    trouble.failed(ConnectionRefusedError())
    trouble.failed(REVOKED)
    assert "nobody listens" in said()[0]
    assert "revoked" in said()[1]


def test_refusal_settles_the_matter():
    trouble = Trouble("b:1883", None)
    trouble.refused("Not authorized")
    assert trouble.settled.is_set()
    assert "Not authorized" in trouble.describe()
    trouble.ended()  # what follows a refusal explains nothing more
    assert "Not authorized" in trouble.describe()


def test_broker_that_ends_the_connection_is_asked_why_but_not_at_every_attempt():
    asked = []
    trouble = Trouble("b:8883", lambda: asked.append(1) or REVOKED)
    for _ in range(50):
        trouble.ended()
    assert len(asked) == 1
    assert "revoked" in trouble.describe()
    assert trouble.settled.is_set()


def test_broker_that_gives_no_reason():
    trouble = Trouble("b:8883", lambda: ConnectionResetError())
    trouble.ended()
    assert "its log says why" in trouble.describe()
    assert not trouble.settled.is_set()


def test_port_that_wants_tls():
    trouble = Trouble("b:8883", None)
    trouble.ended()
    assert "want TLS" in trouble.describe()


def test_lost_connection_is_waited_for_anew():
    trouble = Trouble("b:1883", None)
    trouble.over()
    assert trouble.settled.is_set()
    trouble.lost()
    assert not trouble.settled.is_set()
