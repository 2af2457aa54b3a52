"""TFDS dataset of paired frames from annotated OGI recordings in image and CSV files; see README.md."""
