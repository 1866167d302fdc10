"""Write scikit-learn's digits as PNG files in folders of classes, to have a data set of one's own to try.

python examples/own/make_images.py FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main() -> None:
    """Every fifth image goes to val, the others to train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    into = parser.parse_args().folder
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = into / ("val" if number % 5 == 0 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).save(folder / f"{number:04}.png")


if __name__ == "__main__":
    main()
