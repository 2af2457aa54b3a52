"""Published scores of the PyTorch original and its peers (arXiv:2601.08205), to stand beside those of a study.

They are of other data than any study here: real recordings whose splits share recordings. Latencies are of the GPUs of
their authors, at 640x480.
"""

# Names of columns of `tables.COLUMNS`; scores are shares, distances pixels.
_KEYS = ("accuracy", "mean_iou", "mean_dice", "hd95", "asd", "parameters", "macs", "milliseconds")
_PAPER = {
    "BiSeNetV2": (0.9904, 0.7591, 0.8585, 72.13, 20.89, 2.77e6, 21.01e9, 3.54),
    "DDRNetSlim": (0.9498, 0.5697, 0.7055, 140.50, 46.13, 3.39e6, 16.66e9, 1.66),
    "Gasformer": (0.8956, 0.6209, 0.7431, 42.51, 10.56, 3.65e6, 5.11e9, 5.63),
    "CarboFormer": (0.8792, 0.5495, 0.6504, 41.14, 10.37, 3.81e6, 3.09e9, 9.31),
    "FUME": (0.9882, 0.8099, 0.8923, 46.58, 14.00, 1.28e6, 1.97e9, 3.06),
}

PUBLISHED = {name: dict(zip(_KEYS, values, strict=True)) for name, values in _PAPER.items()}
PUBLISHED["FUME"] |= {"balanced_accuracy": 0.9903, "macro_f1": 0.9749, "Transitional_f1": 0.9459}
NOTE = (
    "Rows marked * are published figures (arXiv:2601.08205), measured on other data, whose splits share recordings, "
    "and on another machine. They cannot be compared with the other rows."
)
