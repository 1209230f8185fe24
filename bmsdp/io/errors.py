"""The error of all readers."""

import os


class FormatError(ValueError):
    """A file does not hold what its format asks for.

    Attributes
    ----------
    path : str
        The file.
    line : int or None
        The offending line, counted from 1; None where no single line is to blame.
    given, needed, remedy : str
        What the file holds, what the format needs, what to do. The message is ``path:line: given; needed; remedy``.
    """

    def __init__(self, path: str | os.PathLike[str], line: int | None, given: str, needed: str, remedy: str) -> None:
        super().__init__(path, line, given, needed, remedy)
        self.path, self.line = os.fspath(path), line
        self.given, self.needed, self.remedy = given, needed, remedy

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.given}; {self.needed}; {self.remedy}"
