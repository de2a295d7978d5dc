from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anystep.data.images import BadImageError, crop_resize, decode_image, stored_grey


def test_16_bit_grey_is_scaled_not_clipped(encoded):
    wide = np.array([[0, 128, 129, 255, 256, 32768, 65535]], np.uint16)
    pixels = decode_image(encoded(wide), size=None, grey=True)
    np.testing.assert_array_equal(pixels.ravel(), np.rint(wide.ravel() * (255 / 65535)))


def test_transparency_is_composited_on_white(encoded):
    clear_black, half_black = Image.new("RGBA", (4, 4), (0, 0, 0, 0)), Image.new("LA", (4, 4), (0, 128))
    assert (decode_image(encoded(clear_black), size=None, grey=False) == 255).all()
    assert (decode_image(encoded(clear_black, "WEBP", lossless=True), size=None, grey=False) == 255).all()
    assert (decode_image(encoded(half_black), size=None, grey=True) == 127).all()
    assert (decode_image(np.asarray(clear_black), size=2, grey=True) == 255).all()


def test_a_palette_with_transparency_is_composited_on_white(encoded):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    plain = decode_image(encoded(image), size=None, grey=False)
    np.testing.assert_array_equal(plain[0], [[10, 20, 30], [200, 100, 50]])
    keyed = decode_image(encoded(image, transparency=0), size=None, grey=False)
    np.testing.assert_array_equal(keyed[0], [[255, 255, 255], [200, 100, 50]])


def test_the_transparent_grey_of_a_16_bit_image_is_white(encoded):
    wide = encoded(np.array([[0, 1000]], np.uint16), transparency=0)
    np.testing.assert_array_equal(decode_image(wide, size=None, grey=True).ravel(), [255, 4])


def test_cmyk_becomes_rgb(encoded):
    red = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    np.testing.assert_allclose(decode_image(red, size=None, grey=False)[4, 4], [255, 0, 0], atol=3)


def test_exif_orientation_is_applied(encoded):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 0] = 255
    pixels = decode_image(encoded(image, exif=exif), size=None, grey=False)
    assert pixels.shape == (3, 2, 3) and pixels[0, 1, 0] == 255 and pixels.sum() == 3 * 255


def test_grey_is_what_is_stored_as_grey(encoded):
    grey = np.zeros((4, 4), np.uint8)
    assert stored_grey(encoded(grey)) and stored_grey(encoded(grey, "JPEG"))
    assert stored_grey(encoded(grey.astype(np.uint16))) and stored_grey(encoded(Image.new("LA", (4, 4))))
    assert not stored_grey(encoded(np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_lossless_formats_keep_every_pixel(encoded, rng, kind):
    pixels = rng.integers(256, size=(9, 7, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(encoded(pixels, kind, **options), size=None, grey=False), pixels)


def test_the_crop_is_central_and_pixels_outside_it_have_no_say():
    wide = np.full((10, 30), 200, np.uint8)
    wide[:, :10] = wide[:, 20:] = 0
    assert (np.asarray(crop_resize(Image.fromarray(wide), 5)) == 200).all()
    assert (np.asarray(crop_resize(Image.fromarray(wide.T), 50)) == 200).all()


def test_shrinking_does_not_alias():
    board = ((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)
    small = np.asarray(crop_resize(Image.fromarray(board), 20))
    np.testing.assert_allclose(small, 127.5, atol=4)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), share=st.floats(0, 0.999))
def test_a_truncated_file_is_refused_or_lacks_no_pixel(kind, share):
    import io

    pixels = np.random.default_rng(1).integers(256, size=(24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    whole = buffer.getvalue()
    try:
        found = decode_image(whole[: int(share * len(whole))], size=None, grey=False)
    except BadImageError:
        return
    np.testing.assert_array_equal(found, decode_image(whole, size=None, grey=False))


def test_foreign_and_missing_files_have_a_reason(encoded, tmp_path: Path):
    for foreign in (b"", b"hello", encoded(np.zeros((4, 4), np.uint8), "BMP")):
        with pytest.raises(BadImageError, match="no readable PNG, JPEG or WebP image"):
            decode_image(foreign, size=None, grey=True)
    with pytest.raises(BadImageError, match="No such file"):
        decode_image(tmp_path / "gone.png", size=None, grey=True)
