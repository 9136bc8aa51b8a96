"""ResNet-18 and ResNet-34, the paper's reference networks (section 4, footnote 5)."""

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them, or without one: then a block is a chain of its layers."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.stride = stride
        self.shortcut = nn.Sequential() if shortcut else None
        if shortcut and (stride != 1 or in_channels != channels):
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (N, channels, H / stride, W / stride)."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            # Of every second pixel, not by a strided convolution: the gradient of a strided 1x1 one writes beyond its
            # memory in narrow networks on a CPU with AVX2 (issue 6035 of oneDNN, torch 2.15).
            out = out + self.shortcut(x[..., :: self.stride, :: self.stride])
        return self.relu2(out)


class ResNet(nn.Module):
    """A ResNet of basic blocks.

    Args:
        depths: number of blocks in each of the four stages.
        num_classes: size of the output.
        width: channels of the stem and the first stage; each later stage doubles them. 64 in the paper.
        small_input: a 3x3 stem of stride 1 (CIFAR); else 7x7 of stride 2 and max pooling (ImageNet).
        in_channels: channels of the images.
        shortcut: whether blocks have shortcuts; a network without them is what He et al. (2016) call a plain one.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        num_classes: int,
        *,
        width: int = 64,
        small_input: bool = True,
        in_channels: int = 3,
        shortcut: bool = True,
    ):
        super().__init__()
        if small_input:
            self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                BasicBlock(before, after, stride, shortcut),
                *(BasicBlock(after, after, 1, shortcut) for _ in range(depth - 1)),
            )
            for depth, before, after, stride in zip(depths, channels, channels[1:], (1, 2, 2, 2), strict=False)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes)

    def stem(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's output for images (N, in_channels, H, W), and the input of the first stage."""
        z = self.conv1(x)
        return z, self.maxpool(self.relu(self.bn1(z)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        _, x = self.stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18(num_classes: int, **options) -> ResNet:
    """ResNet-18: two blocks a stage; options as in `ResNet`."""
    return ResNet((2, 2, 2, 2), num_classes, **options)


def resnet34(num_classes: int, **options) -> ResNet:
    """ResNet-34: three, four, six and three blocks; options as in `ResNet`."""
    return ResNet((3, 4, 6, 3), num_classes, **options)
