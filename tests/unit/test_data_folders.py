"""Folders of images, masks and texts, and COCO's boxes: written by Pillow and json, read as they are, refused by file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wgpu_nn.data import CocoBoxes, DataLoader, ImageFolder, MaskFolder, TextFolder, mapped, read_image, read_mask
from wgpu_nn.errors import DataError, MissingExtraError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 6, 4, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine pictures of 6 x 4 pixels in the classes cat (a folder deep), dog, and ox; and files that are no pictures."""
    for i, pixels in enumerate(PIXELS):
        folder = tmp_path / "photos" / ("cat/black", "dog", "ox")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.{'PNG' if i % 2 else 'bmp'}")
    (tmp_path / "photos" / "dog" / "notes.txt").write_text("none")
    (tmp_path / "photos" / "dog" / ".hidden.png").write_text("none")
    (tmp_path / "photos" / "README").write_text("none")
    return tmp_path / "photos"


def test_an_image_folder_gives_images_by_class(photos: Path):
    data = ImageFolder(photos)
    assert (
        data.classes == ("cat", "dog", "ox") and len(data) == 9 and data.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    )
    image, label = data[4]
    assert image.dtype == np.float32 and label == 1 and label.shape == () and label.dtype == np.int32
    np.testing.assert_array_equal(image, PIXELS[4].transpose(2, 0, 1) / np.float32(255))
    images, labels = data[np.array([8, 0])]
    assert images.shape == (2, 3, 6, 4) and labels.tolist() == [2, 0]
    assert ImageFolder(photos, channels=1)[0][0].shape == (1, 6, 4)


def test_images_are_resized_as_pillow_does(photos: Path):
    want = np.asarray(Image.fromarray(PIXELS[3]).resize((8, 5), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(ImageFolder(photos, size=(5, 8))[1][0], want / np.float32(255))


def test_an_image_folder_splits_by_class_and_is_read_by_workers(photos: Path):
    train, valid = ImageFolder(photos, (4, 4)).split([6, 3], seed=1, stratify=True)
    assert (
        isinstance(train, ImageFolder)
        and sorted(valid.labels) == [0, 1, 2]
        and sorted(train.labels) == [0, 0, 1, 1, 2, 2]
    )
    assert not set(train.paths) & set(valid.paths) and valid.classes == train.classes
    batches = list(DataLoader(train, 4, shuffle=True, seed=0, workers=2).epoch(0))
    assert [x.shape for x, _ in batches] == [(4, 3, 4, 4), (2, 3, 4, 4)]


def test_grey_of_sixteen_bits_palettes_and_turned_photographs_are_read(tmp_path: Path):
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png")[1], deep / 65535, rtol=1e-6)
    Image.fromarray(PIXELS[0]).quantize(256).save(tmp_path / "palette.gif")
    assert read_image(tmp_path / "palette.gif").shape == (3, 6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(PIXELS[0]).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        read_image(tmp_path / "turned.png"), np.rot90(PIXELS[0], -1).transpose(2, 0, 1) / np.float32(255)
    )
    assert read_image(tmp_path / "deep.png", channels=4)[3].min() == 1


def test_a_damaged_image_is_named_by_the_loader_or_left_out_and_counted(photos: Path):
    whole = (photos / "dog" / "4.bmp").read_bytes()
    (photos / "dog" / "4.bmp").write_bytes(whole[:60])
    data = ImageFolder(photos)
    with pytest.raises(DataError, match=r"items .*4\.bmp: expected a(n| readable) image.*it is item 4"):
        list(DataLoader(data, 3, shuffle=False, seed=0).epoch(0))
    kept = ImageFolder(photos, skip_bad=True)
    assert (
        len(kept) == 8
        and kept.skipped == 1
        and "4.bmp" in kept.bad[0]
        and kept.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    )


def test_images_of_different_sizes_need_a_size(photos: Path):
    Image.fromarray(PIXELS[0][:5]).save(photos / "ox" / "z.png")
    data = ImageFolder(photos)
    assert data[9][0].shape == (3, 5, 4)
    with pytest.raises(DataError, match=r"images of one size.*z\.png.*give size="):
        data[np.arange(10)]
    assert ImageFolder(photos, (3, 3))[np.arange(10)][0].shape == (10, 3, 3, 3)


def test_folders_that_are_missing_empty_or_strange_are_refused(photos: Path, tmp_path: Path):
    with pytest.raises(DataError, match="expected a readable folder"):
        ImageFolder(tmp_path / "none")
    (photos / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected files .* in .*empty, got none"):
        ImageFolder(photos)
    with pytest.raises(DataError, match=r"a folder for each class of \['cat', 'dog'\], got \['empty', 'ox'\]"):
        ImageFolder(photos, classes=["cat", "dog"])
    some = ImageFolder(photos, classes=["ox", "dog", "cat", "empty", "never"])
    assert len(some) == 9 and some.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(DataError, match="a folder for each class, got none"):
        ImageFolder(photos / "empty")
    wrongs: list[dict[str, Any]] = [{"size": (0, 3)}, {"channels": 2}]
    for wrong in wrongs:
        with pytest.raises(DataError, match="expected size"):
            ImageFolder(photos, **wrong)


def test_texts_are_read_by_class(tmp_path: Path):
    for name, text in (("good/a", "schön\0"), ("good/b", "x" * 99), ("bad/a", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.txt").write_bytes(text.encode())
    data = TextFolder(tmp_path)
    assert data.classes == ("bad", "good")
    text, label = data[1]
    assert text.item() == "schön\0" and label == 1
    lengths = mapped(data, lambda batch: (np.array([len(t) for t in batch[0]]), batch[1]))
    ((n, y),) = DataLoader(lengths, 8, shuffle=False, seed=0).epoch(0)
    assert n.tolist() == [0, 6, 99] and y.tolist() == [0, 1, 1]
    (tmp_path / "bad" / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a\.txt: expected text in utf-8"):
        data[0]
    assert TextFolder(tmp_path, encoding="latin-1")[0][0].item() == "ÿ"


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[Path, Path]:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for i in range(3):
        Image.fromarray(PIXELS[i]).save(images / f"{i}.png")
        mask = Image.fromarray((np.arange(24).reshape(6, 4) % 3).astype(np.uint8))
        if i == 1:
            mask = mask.convert("P")
        mask.save(masks / f"{i}.png")
    return images, masks


def test_masks_come_with_their_images(scenes: tuple[Path, Path]):
    images, masks = MaskFolder(*scenes, classes=3)[np.array([2, 1])]
    assert images.shape == (2, 3, 6, 4) and masks.shape == (2, 6, 4) and masks.dtype == np.int32
    assert (masks == np.arange(24).reshape(6, 4) % 3).all()
    small = MaskFolder(*scenes, classes=3, size=(3, 2))[0]
    assert small[0].shape == (3, 3, 2) and set(small[1].flat) <= {0, 1, 2}
    assert [len(part) for part in MaskFolder(*scenes, classes=3).split([2, 1], seed=0)] == [2, 1]


def test_masks_that_do_not_fit_are_refused(scenes: tuple[Path, Path]):
    images, masks = scenes
    with pytest.raises(DataError, match=r"0\.png: expected classes in 0 .. 1, got 2"):
        MaskFolder(images, masks, classes=2)[0]
    assert MaskFolder(images, masks, classes=2, ignore=2)[0][1].max() == 2
    Image.fromarray(PIXELS[0]).save(masks / "0.png")
    with pytest.raises(DataError, match=r"0\.png: expected one number for each pixel, got colours"):
        MaskFolder(images, masks, classes=3)[0]
    Image.fromarray(PIXELS[0][:3, :, 0]).save(masks / "0.png")
    with pytest.raises(DataError, match=r"0\.png: expected a mask of its image's size \[6, 4\], got \[3, 4\]"):
        MaskFolder(images, masks, classes=256)[0]
    (masks / "2.png").unlink()
    with pytest.raises(DataError, match="'2' and 0 more in one of them only"):
        MaskFolder(images, masks, classes=3)
    assert read_mask(masks / "1.png").dtype == np.int32


def described(**more: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "1.png", "height": 6, "width": 4},
            {"id": 5, "file_name": "0.png", "height": 6, "width": 4},
        ],
        "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [1, 2, 2, 3]},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 6], "iscrowd": 0},
            {"image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        ],
        **more,
    }


def coco(scenes: tuple[Path, Path], **more: Any) -> CocoBoxes:
    path = scenes[0].parent / "boxes.json"
    path.write_text(json.dumps(described(**more)))
    return CocoBoxes(path, scenes[0], size=(12, 4))


def test_boxes_follow_their_resized_images(scenes: tuple[Path, Path]):
    data = coco(scenes)
    assert data.classes == ("person", "brush") and len(data) == 2
    images, boxes, kinds = data[np.arange(2)]
    assert images.shape == (2, 3, 12, 4) and kinds.tolist() == [[-1, -1], [1, 0]]
    assert boxes.tolist() == [[[0, 0, 0, 0]] * 2, [[1, 4, 3, 10], [0, 0, 4, 12]]]
    assert CocoBoxes(scenes[0].parent / "boxes.json", scenes[0], most=5)[1][1].shape == (5, 4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"images": []}, "at least one image"),
        ({"images": None}, "expected images, annotations and categories"),
        ({"categories": [{"id": 1}]}, "KeyError: 'name'"),
        (
            {"annotations": [{"image_id": 8, "category_id": 1, "bbox": [0, 0, 1, 1]}]},
            "annotation 0: expected the number of an",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1]}]},
            r"annotation 0: expected a category of \[1, 90\]",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 0, 1]}]},
            "annotation 0: expected a box of some",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [3, 0, 3, 1]}]},
            "annotation 0: expected a box of some",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 3]}]},
            r"annotation 0: expected bbox \[left",
        ),
        ({"images": [{"id": 7, "file_name": "x.png", "height": 6, "width": 4}]}, "annotation 2|x.png, and 0 more"),
    ],
)
def test_annotations_that_do_not_fit_are_refused_at_once(scenes: tuple[Path, Path], more: dict[str, Any], said: str):
    with pytest.raises(DataError, match=said):
        coco(scenes, **more)


def test_without_pillow_the_extra_of_data_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"wgpu-nn\[data\]"):
        ImageFolder(photos)[0]
