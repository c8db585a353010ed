"""One running site for all attacks: what one of them breaks, the next ones show too."""

import pytest

from tests.security.site import SecuredSite


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with SecuredSite(tmp_path_factory.mktemp("secured")) as running:
        yield running
