"""A run, from its spec.json: its network, its images, clean or noisy, and the device that computes on them."""
