"""Small files in exactly the layouts that data sets of the field are published in."""

import gzip
import json
import struct

import h5py
import numpy as np
from PIL import Image

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255))


def squares(number, height, width, entities, background=1, side=8):
    """Pictures with masks (M, K, H, W) of 0 and 255: number i has 1 + i % (K - background) squares in a row."""
    image = np.full((number, height, width, 3), 30, np.uint8)
    mask = np.zeros((number, entities, height, width), np.uint8)
    mask[:, 0] = 255
    objects = entities - background
    for i in range(number):
        for k in range(1 + i % objects):
            left = (width - objects * (side + 1)) // 2 + k * (side + 1)
            cut = (i, slice(height // 2, height // 2 + side), slice(left, left + side))
            image[cut] = COLOURS[k % 6]
            mask[i, 0][cut[1:]] = 0
            mask[i, background + k][cut[1:]] = 255
    return image, mask


def visibility(mask):
    return (mask.max((2, 3)) > 0).astype(np.float32)


# TFRecord: protocol buffers and framing by hand


def _varint(value):
    out = b""
    while True:
        value, byte = value >> 7, value & 127
        out += bytes([byte | (128 if value else 0)])
        if not value:
            return out


def _message(number, data):
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _feature(values):
    """A tf.train.Feature: of bytes a string each, as FixedLenFeature(shape, tf.string) has them; or floats."""
    if values.dtype == np.uint8:
        flat = values.reshape(-1)
        tags = np.stack([np.full_like(flat, 0x0A), np.full_like(flat, 1), flat], 1)
        return _message(1, tags.tobytes())
    return _message(2, _message(1, values.astype("<f4").tobytes()))


def example(features):
    entries = [
        _message(1, name.encode()) + _message(2, _feature(v)) for name, v in features.items()
    ]
    return _message(1, b"".join(_message(1, entry) for entry in entries))


def _crc32c(data):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord(path, rows, packed=True):
    """The checksums of data are left 0: readers of such files leave them unread, and gzip has its own."""
    content = b""
    for row in rows:
        data, length = example(row), struct.pack("<Q", len(example(row)))
        content += length + struct.pack("<I", _crc32c(length)) + data + bytes(4)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def multi_dsprites(path, number=20, entities=5, colours=3):
    image, mask = squares(number, 64, 64, entities)
    seen = visibility(mask)
    rows = [
        {
            "image": image[i, ..., :colours],
            "mask": np.moveaxis(mask[i], 0, -1)[..., None],
            "x": np.linspace(0, 1, entities),
            "y": np.full(entities, 0.5),
            "shape": np.arange(entities) % 4 * seen[i],
            "color": np.random.default_rng(i).uniform(size=(entities, colours)),
            "visibility": seen[i],
            "orientation": np.zeros(entities),
            "scale": np.ones(entities),
        }
        for i in range(number)
    ]
    return tfrecord(path, rows)


def objects_room(path, number=20, one_wall=False):
    image, mask = squares(number, 64, 64, 7, background=3 if one_wall else 4)
    mask[:, 0, 32:] //= 2  # sky above, floor below, walls at the sides
    mask[:, 1, 32:] = 255 - mask[:, 2 if one_wall else 3 :, 32:].max(1)
    mask[:, 0, 32:] = 0
    mask[:, 2, :32, :4], mask[:, 0, :32, :4] = 255, 0
    if not one_wall:
        mask[:, 3, :32, -4:], mask[:, 0, :32, -4:] = 255, 0
    return tfrecord(path, [{"image": image[i], "mask": mask[i][..., None]} for i in range(number)])


def tetrominoes(path, number=20):
    image, mask = squares(number, 35, 35, 4)
    rows = [
        {
            "image": image[i],
            "mask": mask[i][..., None],
            "x": np.arange(4.0),
            "y": np.arange(4.0),
            "shape": np.array([0.0, 3.0, 16.0, 9.0]),
            "color": np.eye(4, 3),
            "visibility": np.ones(4),
        }
        for i in range(number)
    ]
    return tfrecord(path, rows)


def clevr_with_masks(path, number=10):
    image, mask = squares(number, 240, 320, 11, side=12)
    codes = {name: np.arange(11, dtype=np.uint8) % 3 for name in ("size", "material", "color")}
    rows = [
        {
            "image": image[i],
            "mask": mask[i][..., None],
            **{name: np.arange(11.0) for name in ("x", "y", "z", "rotation")},
            "pixel_coords": np.tile(np.arange(11.0)[:, None], (1, 3)) + np.array([0, 0, 5]),
            "shape": (np.arange(11) % 4).astype(np.uint8),
            **codes,
            "visibility": visibility(mask)[i],
        }
        for i in range(number)
    ]
    return tfrecord(path, rows)


def object_centric(path, number=20, entities=6, factors=True, background=1):
    """addtt/object-centric-library: masks are numbers of entities."""
    image, mask = squares(number, 64, 64, entities, background)
    with h5py.File(path, "w") as file:
        file["image"], file["mask"] = image, mask.argmax(1).astype(np.uint8)[..., None]
        file["visibility"] = visibility(mask)
        file["num_actual_objects"] = visibility(mask).sum(1, keepdims=True)
        if factors:
            file["shape"] = np.tile(np.arange(entities)[:, None] % 4, (number, 1, 1))
            file["color"] = np.random.default_rng(0).uniform(size=(number, entities, 3))
            file["scale"] = np.ones((number, entities, 1), np.float32)
    return path


def dsprites(path, number=60):
    """Deepmind's npz: 0 and 1, in the order of the factors."""
    random = np.random.default_rng(0)
    images, values = np.zeros((number, 64, 64), np.uint8), np.ones((number, 6))
    for i in range(number):
        x, y, side = random.integers(2, 40), random.integers(2, 40), random.integers(6, 20)
        images[i, y : y + side, x : x + side] = 1
        values[i] = 1, 1 + i * 3 // number, side / 20, 0, x / 64, y / 64
    table = np.array({"title": "dSprites"}, dtype=object)
    classes = values.astype(np.int64)
    np.savez_compressed(
        path, imgs=images, latents_classes=classes, latents_values=values, metadata=table
    )
    return path


def clevr(folder, train=12, validation=6, size=(480, 320)):
    """CLEVR_v1.0: pictures with a large red sphere in the middle, and small cubes at the sides."""
    for split, number in (("train", train), ("val", validation), ("test", 2)):
        (folder / "images" / split).mkdir(parents=True)
        scenes = []
        for i in range(number):
            name, picture = f"CLEVR_{split}_{i:06}.png", Image.new("RGBA", size, "gray")
            picture.paste("red", (210, 130, 270, 190))
            picture.save(folder / "images" / split / name)
            things = [
                ("sphere", "large", "red", 240, 160),
                ("cube", "small", "blue", 130 + 10 * i, 90),
            ]
            things.append(("cylinder", "small", "gray", 20, 160))  # left of the square that is cut
            scenes.append(
                {
                    "image_filename": name,
                    "image_index": i,
                    "split": split,
                    "directions": {"left": [-0.6, -0.7, 0.0]},
                    "relationships": {"left": [[], [0]]},
                    "objects": [
                        {
                            "shape": shape,
                            "size": large,
                            "material": "rubber",
                            "color": colour,
                            "rotation": 10.5,
                            "pixel_coords": [x, y, 11.0],
                            "3d_coords": [0.1, 0.2, 0.7],
                        }
                        for shape, large, colour, x, y in things
                    ],
                }
            )
        if split != "test":
            (folder / "scenes").mkdir(exist_ok=True)
            table = {"info": {"split": split}, "scenes": scenes}
            (folder / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps(table))
    return folder


def run_lengths(mask):
    """Uncompressed RLE: lengths of runs of 0 and 1 in turn, down the columns."""
    flat, counts, now = mask.T.reshape(-1), [], 0
    while len(flat):
        same = flat == now
        length = len(flat) if same.all() else int(same.argmin())
        counts.append(length)
        flat, now = flat[length:], 1 - now
    return {"counts": counts, "size": [*mask.shape]}


def coco(folder, train=12, validation=6):
    """Pictures of several sizes with a rectangle as a polygon, one as run lengths, and a crowd."""
    (folder / "annotations").mkdir(parents=True)
    for split, number in (("train2017", train), ("val2017", validation)):
        (folder / split).mkdir()
        table = {"info": {}, "licenses": [], "images": [], "annotations": []}
        table["categories"] = [{"id": 18, "name": "dog"}, {"id": 44, "name": "bottle"}]
        for i in range(number):
            width, height = 80 + 4 * i, 64
            picture = Image.new("RGB", (width, height), "black")
            left = width // 2 - 20
            picture.paste("red", (left, 10, left + 20, 30))
            picture.paste("blue", (left + 10, 40, left + 30, 50))
            name = f"{i:012}.png"
            picture.save(folder / split / name)
            about = {"id": 7 * i, "file_name": name, "width": width, "height": height}
            table["images"].append(about | {"license": 1})
            polygon = [left, 10, left + 20, 10, left + 20, 30, left, 30]
            mask = np.zeros((height, width), np.uint8)
            mask[40:50, left + 10 : left + 30] = 1
            shapes = [(18, [polygon], 0), (44, run_lengths(mask), 0)]
            shapes.append((18, run_lengths(1 - mask), 1))
            for category, segmentation, crowd in shapes:
                entry = {"id": len(table["annotations"]), "image_id": 7 * i, "area": 200.0}
                entry |= {"bbox": [left, 10, 20, 20], "category_id": category, "iscrowd": crowd}
                table["annotations"].append(entry | {"segmentation": segmentation})
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(table))
    return folder


def torn(path, share=0.6):
    """A file cut off."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
