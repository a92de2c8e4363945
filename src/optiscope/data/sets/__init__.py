"""One file per family of data sets: where each is published, its digests and its layouts.

Digests of downloads are SHA-256 sums that several public projects pin independently and that agree;
MD5 sums are those that torchvision publishes for the unpacked CIFAR batches.
"""
