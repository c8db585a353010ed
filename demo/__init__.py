"""The whole system on one machine: real broker, real processes, replayed samples."""
