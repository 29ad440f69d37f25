"""Whose processor a saved state was made on, as far as the state shows it.

The processor's own identification (CPUID leaf 0) is twelve letters in EBX, EDX and ECX. The layout around it in
``partition_state`` is not public, so the letters are looked for in both orders in which the registers may be kept;
nothing found means "not known", never "the same".
"""

from __future__ import annotations

from rehost_payload.formats.errors import FormatError
from rehost_payload.formats.vm_tree import Blob, Node

_MAKERS = {b"GenuineIntel": "Intel", b"AuthenticAMD": "AMD", b"HygonGenuine": "Hygon"}
_LARGEST = 8 << 20


def vendor_of(state: Node) -> str:
    """ "Intel", "AMD" or "Hygon" for the tree of a state file; "" where it does not say, or not clearly."""
    node = state.find("savedstate/savedVM/partition_state") or state.find("savedVM/partition_state")
    value = None if node is None else node.value
    if isinstance(value, Blob):
        try:
            value = value.read() if value.size <= _LARGEST else None
        except (FormatError, OSError):
            value = None
    if not isinstance(value, bytes):
        return ""
    found = {name for letters, name in _MAKERS.items() if any(form in value for form in _forms(letters))}
    return found.pop() if len(found) == 1 else ""


def _forms(letters: bytes) -> tuple[bytes, bytes]:
    ebx, edx, ecx = letters[:4], letters[4:8], letters[8:]
    return letters, ebx + ecx + edx
