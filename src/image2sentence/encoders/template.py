"""Template that places a sentence among words by position.

A placeholder is never looked up in user text.
"""

from __future__ import annotations

from dataclasses import dataclass

from image2sentence.errors import ConfigError

DEFAULT_TEMPLATE = "{sentence} {modifier}"


@dataclass(frozen=True)
class Template:
    """The words before the sentence, between sentence and modifier, and after the modifier."""

    prefix: str
    middle: str
    suffix: str

    @classmethod
    def parse(cls, text: str) -> Template:
        """From "words {sentence} words {modifier} words". Raises ConfigError on anything else."""
        before, found, rest = text.partition("{sentence}")
        middle, found_too, after = rest.partition("{modifier}")
        if not (found and found_too) or "{" in before + middle + after:
            raise ConfigError(
                f"expected a template with {{sentence}} and then {{modifier}}, once each, such as "
                f"{DEFAULT_TEMPLATE!r}; got {text!r}"
            )
        return cls(before.strip(), middle.strip(), after.strip())

    def tail(self, modifier: str) -> str:
        """The words that follow the sentence; none where the modifier is empty (image search)."""
        modifier = modifier.strip()
        return " ".join(part for part in (self.middle, modifier, self.suffix) if part) if modifier else ""
