"""Errors that a person can act on.

Every error raised for something outside the program (a file, a message, a setting, a broker)
is a `DdnnError`; the command line shows its text without a traceback. Anything else that
escapes is a bug and keeps its traceback.
"""


class DdnnError(Exception):
    """Base of all errors that say what is wrong and what to do."""


class WireError(DdnnError):
    """Bytes that are not a valid frame message."""


class BundleError(DdnnError):
    """A bundle, manifest or section that must not be used."""


class ConfigError(DdnnError):
    """A setting that is unknown, of the wrong type or out of bounds."""


class DataError(DdnnError):
    """A data set of a layout that is not understood."""


class SourceError(DdnnError):
    """A camera or another source of pictures that cannot be used."""


class RecordsError(DdnnError):
    """A database of decisions that cannot be used, or not now."""
