"""Embedded dataset of simulated dual-gas OGI recordings; `simulator` describes the model."""
