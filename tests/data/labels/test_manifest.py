"""The manifest of a review: there and back whatever the names, also by way of a spreadsheet, every fault named."""

import dataclasses

import numpy as np
import pytest

from fume_jax.data.labels.manifest import COLUMNS, Reviewed, mask_digest, read_manifest, write_manifest
from fume_jax.runtime.errors import UserError

FILM = Reviewed(
    image="bottle 3/bottle 3_frame_000012_co2.png",
    recording="bottle 3",
    gas="co2",
    frame="frame_000012",
    time=0.48,
    source="films/a,b.seq",
    frame_index=12,
    uncertainty=0.0312,
    jump=4e-05,
    disagreement=1.0,
    score=0.9167,
    mask_digest="sha256:0123456789012345",
    model="fume 12000 0123456789abcdef",
    ph=5.9,
    class_name="Transitional",
    subject="12",
)
IMAGE = dataclasses.replace(
    FILM, recording="=1+1", gas="ch4", time=None, frame_index=-1, ph=None, class_name="", subject=""
)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    write_manifest(tmp_path / "review.csv", [FILM, IMAGE])
    assert read_manifest(tmp_path / "review.csv") == [FILM, IMAGE]
    header, _, second = (tmp_path / "review.csv").read_text().splitlines()
    assert header.split(",") == list(COLUMNS) and header.endswith("mask_digest,model,ph,class,subject")
    assert second.split(",")[1] == "'=1+1", "no spreadsheet runs it"


def test_what_a_spreadsheet_makes_of_it_is_read_alike(tmp_path):
    path = tmp_path / "review.csv"
    write_manifest(path, [dataclasses.replace(FILM, source="a.seq")])
    text = path.read_text().replace(",", ";").replace("0.48", "0,48").replace(";12;0.0312", ";12.0;0,0312")
    path.write_text("\ufeff" + text.replace(";12\n", ";12.0\n"), encoding="utf-8")
    assert read_manifest(path) == [dataclasses.replace(FILM, source="a.seq")]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("gas", "n2", "gas is 'n2'; expected co2 or ch4"),
        ("frame_index", "1.5", "frame_index is '1.5'; expected a whole number"),
        ("frame_index", "", "frame_index is ''; expected a whole number"),
        ("score", "high", "score is 'high'; expected a number"),
        ("ph", "low", "ph is 'low'; expected a number"),
    ],
)
def test_a_fault_is_named_with_its_row(tmp_path, column, value, message):
    path = tmp_path / "review.csv"
    write_manifest(path, [FILM, dataclasses.replace(FILM, **{column: value})])
    with pytest.raises(UserError) as refused:
        read_manifest(path)
    assert str(refused.value) == f"{path}: row 3: {message}"


def test_a_digest_tells_masks_apart_by_values_and_shape():
    mask = np.random.default_rng(0).integers(0, 3, (4, 6)).astype(np.uint8)
    changed = mask.copy()
    changed[3, 5] ^= 1
    assert mask_digest(mask) == mask_digest(mask.astype(np.int32)) == mask_digest(np.asfortranarray(mask))
    assert len({mask_digest(x) for x in (mask, changed, mask.reshape(6, 4), mask.T)}) == 4
    # A value that must not change: manifests of earlier versions are read.
    assert mask_digest(np.zeros((2, 3), np.uint8)) == "sha256:02fcf8a26508a775"
