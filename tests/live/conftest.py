"""Every decision that a live test hears is held against the documented schema."""

import pytest

import demo.observer
from tests.schemas import problems


@pytest.fixture(autouse=True)
def decisions_are_as_documented(monkeypatch):
    """The observer's messages are checked on the side; what is wrong fails the test at its end."""
    wrong = []
    decode = demo.observer.decode

    def checked(payload):
        wrong.extend((problem, payload) for problem in problems("decision", payload))
        return decode(payload)

    monkeypatch.setattr(demo.observer, "decode", checked)
    yield
    assert wrong == []


@pytest.fixture(autouse=True)
def no_audits_by_chance(monkeypatch):
    """One in a hundred early decisions would have bytes and requests that tests count.

    Whoever wants audits asks for them by option, which counts for more than the environment.
    """
    monkeypatch.setenv("DDNN_AUDIT_SHARE", "0")
