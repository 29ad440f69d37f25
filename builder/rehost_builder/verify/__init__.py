"""`rehost verify ISO`: reads a finished medium back and judges it, point by point.

Shares nothing with the code that writes media: the image is read by `media.iso_reader`, not by pycdlib, and boot stores,
FAT images and programs by the payload's own readers of these formats.
"""
