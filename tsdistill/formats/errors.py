"""What is wrong with a file's content."""

from __future__ import annotations

from tsdistill.errors import ArtifactError


class FormatError(ArtifactError, ValueError):
    """A file's content is not what its format asks for; the text goes on after the file's name: "it is cut short"."""
