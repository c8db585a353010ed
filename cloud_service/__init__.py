"""The cloud tier: workers that run cloud sections for any number of sites."""
