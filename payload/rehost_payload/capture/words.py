"""Numbers as the parameters of findings show them, the same in every language."""


def in_gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
