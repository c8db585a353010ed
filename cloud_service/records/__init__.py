"""The database of decisions: what is kept, how it comes in, how long it stays."""
