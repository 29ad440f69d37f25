"""Reads WIM images, and adds files to one by appending; nothing that is already there is compressed again.

There is no official specification of today's format; Microsoft's "Windows Imaging File Format (WIM)" (2007) covers
most of it, wimlib's headers the rest. LZX and XPRESS follow [MS-PATCH], [MS-XCA] and what wimlib writes.
"""
