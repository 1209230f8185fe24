"""RevNets, images and the recipe that trains them: does PETRA (arXiv:2406.02052) reach what backpropagation reaches?

Needs torch: ``pip install "bmsdp[learn]"``.
"""

from .data import ImageBatches, Images, animals, cifar10, crop_and_flip, digits
from .recipe import accuracy, predict, rates, train
from .revnet import (
    Chain,
    Classifier,
    cifar_stem,
    digits_stem,
    imagenet_stem,
    merged,
    revnet,
    revnet18,
    revnet34,
    revnet50,
    silhouettes_stem,
    small,
)

__all__ = [
    "Chain",
    "Classifier",
    "ImageBatches",
    "Images",
    "accuracy",
    "animals",
    "cifar10",
    "cifar_stem",
    "crop_and_flip",
    "digits",
    "digits_stem",
    "imagenet_stem",
    "merged",
    "predict",
    "rates",
    "revnet",
    "revnet18",
    "revnet34",
    "revnet50",
    "silhouettes_stem",
    "small",
    "train",
]
