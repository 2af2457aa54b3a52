"""Annotated OGI recordings in image and CSV files, as a TFDS dataset of paired frames; see README.md."""
