"""Images: the root file system and the kernel that machines start from, made from Debian packages
without root or any tool but QEMU, or brought along by the user."""

from org.sandbox.vm.image.adopt import import_image
from org.sandbox.vm.image.build import build_image
from org.sandbox.vm.image.store import Image, OnProgress, Progress, find_image

__all__ = ["Image", "OnProgress", "Progress", "build_image", "find_image", "import_image"]
