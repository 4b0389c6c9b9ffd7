"""Fuzz the image reader with atheris: `python tests/erofs/fuzz_reader.py [-max_total_time=60] [CORPUS]`.

Whatever the bytes are, reading them gives entries or an `InputError`, nothing else.
"""

import sys

import atheris

with atheris.instrument_imports(include=["cfsbuild.erofs", "cfsbuild.tree.dump"]):
    from cfsbuild.erofs.reader import read_image

from cfsbuild.errors import InputError


def one_input(data):
    # Two bytes place the rest in a good image; otherwise hardly an input would get beyond the superblock.
    provider = atheris.FuzzedDataProvider(data)
    image = bytearray(GOOD)
    for _ in range(provider.ConsumeIntInRange(0, 4)):
        offset = provider.ConsumeIntInRange(0, len(image) - 1)
        piece = provider.ConsumeBytes(provider.ConsumeIntInRange(1, 16))
        image[offset : offset + len(piece)] = piece
    del image[provider.ConsumeIntInRange(len(image) // 2, len(image)) :]
    for candidate in (bytes(image), data):
        try:
            for _ in read_image(candidate).entries():
                pass
        except InputError:
            pass


if __name__ == "__main__":
    import reader_images

    GOOD = reader_images.example()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
