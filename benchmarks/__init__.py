"""Measurements that say how good something is; not tests, and never run by them."""
