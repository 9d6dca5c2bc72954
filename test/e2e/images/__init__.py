# SPDX-License-Identifier: Apache-2.0
"""Images for tests, a registry that serves them (well or badly), and a driver of the image store."""
from .build import Image, blob_digest, docker_archive, oci_archive, oci_layout, tar, zstd
from .driver import Driver
from .registry import Registry

__all__ = ["Driver", "Image", "Registry", "blob_digest", "docker_archive", "oci_archive", "oci_layout", "tar", "zstd"]
