"""The tables' versions: Alembic's migrations, brought with the package."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from ddnn.errors import RecordsError

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).with_name("migrations")
#: PostgreSQL: two programs that start at once take turns.
_LOCK = 0x64646E6E


def migrate(connection: Connection) -> None:
    """Bring the tables up to date, in the transaction of `connection`.

    Raises:
        RecordsError: they are of a newer program.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    now = MigrationContext.configure(connection).get_current_revision()
    if now == scripts.get_current_head():
        return
    if now is not None and now not in known:
        raise RecordsError(
            f"the database was made by a newer version of this program (its tables are {now!r}): "
            "update this one"
        )
    config.attributes["connection"] = connection
    logging.getLogger("alembic").setLevel(logging.WARNING)
    command.upgrade(config, "head")
    log.info("the database's tables are at %s", scripts.get_current_head())
