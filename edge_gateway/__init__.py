"""The gateway of a site: the one authority for its decisions."""
