"""The training loop as a tutorial would write it: what `loop.fit` is compared with, and nothing else."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from sdnet.csc import update_dictionaries
from sdnet.data.datasets import DatasetInfo
from sdnet.data.images import Images
from sdnet.training.schedule import learning_rate_factor


class Pictures(Dataset):
    """Images (N, H, W, channels) with their labels, one at a time through a transform of PIL pictures."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[i].squeeze())), int(self.labels[i])


def fit_plainly(
    model: nn.Module,
    images: Images,
    info: DatasetInfo,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    seed: int,
    workers: int,
) -> Iterator[float]:
    """Train on the CPU in float32 with SGD and a cosine schedule, as `loop.fit` does, without what makes that fast.

    Pixels lie channel by channel in memory, a loader with worker processes crops and mirrors image by image with
    torchvision, and nothing is written down.

    Yields:
        after each epoch the share of the test images that are classified correctly.
    """
    augmentation = [transforms.RandomCrop(info.size, padding=info.crop_padding)]
    augmentation += [transforms.RandomHorizontalFlip()] if info.flip else []
    train = Pictures(
        images.train_images, images.train_labels, transforms.Compose([*augmentation, transforms.ToTensor()])
    )
    test = Pictures(images.test_images, images.test_labels, transforms.ToTensor())
    generator = torch.Generator().manual_seed(seed)
    train_loader = DataLoader(train, batch_size, shuffle=True, num_workers=workers, generator=generator)
    test_loader = DataLoader(test, batch_size, num_workers=workers)
    optimizer = torch.optim.SGD(
        model.parameters(), learning_rate, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
    )
    for epoch in range(epochs):
        model.train()
        for step, (x, y) in enumerate(train_loader):
            progress = (epoch + step / len(train_loader)) / epochs
            optimizer.param_groups[0]["lr"] = learning_rate * learning_rate_factor("cosine", progress, ())
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            update_dictionaries(model)
        model.eval()
        with torch.no_grad():
            correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in test_loader)
        yield correct / len(test)
