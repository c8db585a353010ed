"""`ddnn paper`: the paper's experiments with the exported sections, next to the paper's numbers.

`plan` says which networks are needed, `schedule` trains those that are not in the cache, `tables`
measures the exported sections, `plots` and `report` write it down.
"""
