"""Writes prepared datasets in the layouts of other programs."""
