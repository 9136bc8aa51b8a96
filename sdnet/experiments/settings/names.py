"""The names that settings may hold."""

from typing import Literal

ModelName = Literal["resnet18", "resnet34", "mdeq", "scn", "scn18", "sdnet18", "sdnet34", "sdnet18-all", "sdnet34-all"]
DatasetName = Literal["digits", "cifar10", "cifar100", "imagenet", "folder"]
Noise = Literal["gaussian", "shot", "speckle", "impulse"]
Variant = Literal["paper", "squared", "parabola", "released"]
NoiseScale = Literal["cifar", "imagenet"]
NoiseLevels = Literal["interleaved", "released"]
AutoAttack = Literal["apgd-ce", "apgd-t", "fab-t", "square"]
Downloaded = Literal["cifar10", "cifar100", "cifar10-c", "cifar100-c"]
