"""What gw top shows above its tables: a job, and a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static


class JobScreen(ModalScreen[None]):
    """Everything about a job."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back"),
        Binding("r", "retry", "Retry"),
    ]

    def __init__(self, job: int, text: str, retry: Callable[[int], None]) -> None:
        super().__init__()
        self._job, self._text, self._retry = job, text, retry

    def compose(self) -> ComposeResult:
        """Show the text."""
        with VerticalScroll(id="job"):
            yield Static(Text(self._text))
        yield Footer()

    def action_retry(self) -> None:
        """Ask whether to retry the job."""
        self._retry(self._job)


class Question(ModalScreen[bool]):
    """A question, with y or n for the reply."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape", "dismiss(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Show the question."""
        yield Static(Text(f"{self._text} y/n"), id="question")
        yield Footer()
