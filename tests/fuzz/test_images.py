"""Damaged image files: refused with an image's error, or decoded to what Pillow decodes them to."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.budget import EXAMPLES
from timm_dpa.embedding.images import ImageError, ImageItem, load_rgb

pytestmark = pytest.mark.slow

FORMATS = ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'MPO')


def _encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


ORIGINALS = {kind: _encoded(kind) for kind in FORMATS}


def _pillow(content: bytes) -> np.ndarray | None:
    """What Pillow makes of the file, without any tolerance; None where it refuses."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return np.asarray(image.convert('RGB'))
    except Exception:  # whatever its decoders raise
        return None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(ORIGINALS[draw(st.sampled_from(FORMATS))])
    kind = draw(st.sampled_from(('cut', 'flip', 'zero', 'insert', 'swap head')))
    if kind == 'cut':
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    place = draw(st.integers(0, len(content) - 1))
    if kind == 'flip':
        for _ in range(draw(st.integers(1, 8))):
            content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif kind == 'zero':
        width = draw(st.integers(1, 200))
        content[place : place + width] = bytes(min(width, len(content) - place))
    elif kind == 'insert':
        content[place:place] = draw(st.binary(min_size=1, max_size=40))
    else:
        other = ORIGINALS[draw(st.sampled_from(FORMATS))]
        content[:16] = other[:16]
    return bytes(content)


@seed(20261127)
@settings(max_examples=30 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(damaged())
def test_damaged_files(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'damaged.bin'
    path.write_bytes(content)
    expected = _pillow(content)
    image, refusal = None, ''
    try:
        image = load_rgb(ImageItem(path, str(path)))
    except ImageError as error:
        refusal = str(error)
    if image is None:
        assert str(path) in refusal
        assert '\n' not in refusal
        return
    assert image.mode == 'RGB'
    assert expected is not None, 'Pillow refuses this file, and it was taken'
    assert image.size == expected.shape[1::-1] or image.size == expected.shape[:2]  # turned as its EXIF says
