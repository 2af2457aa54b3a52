"""Embedded dataset: simulated dual-gas OGI recordings (see `simulator` for what they model)."""
