"""SDNet: convolutional sparse coding layers in image classifiers, and a replication of the paper."""
