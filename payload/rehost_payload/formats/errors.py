"""The one error that every reader in this package raises for bytes it cannot accept."""


class FormatError(ValueError):
    """The bytes are not what they should be: truncated, damaged or hostile.

    ``what`` names the structure ("GPT header", "regf hive", ...), ``offset`` is the byte offset in the source
    where reading stopped, or None where no single place can be named.
    """

    def __init__(self, what: str, problem: str, offset: int | None = None) -> None:
        self.what = what
        self.problem = problem
        self.offset = offset
        place = "" if offset is None else f" at byte {offset:#x}"
        super().__init__(f"{what}{place}: {problem}")
