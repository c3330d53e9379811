# SPDX-License-Identifier: Apache-2.0
"""The urwid screen: list of incidents, details, counters, filter.  No mouse; 16 colours or none."""

import os
from collections.abc import Iterable
from typing import IO, Any

import urwid

from tracer.base.printable import printable
from tracer.watch.detail import DetailLine, detail_lines, list_row
from tracer.watch.feed import RecordFeed
from tracer.watch.model import IncidentList, ListedIncident

WIDE_COLUMNS = 120
"""Minimum width for list and detail side by side."""
_LABEL_COLUMNS = 28
_SIZE_COLUMNS = 10
_KEYS = "q quit   / filter   up down   Tab list or detail   Home newest"
_STYLES = {
    "title": ("white", "dark blue", "standout"),
    "heading": ("bold", "", "bold"),
    "label": ("dark cyan", "", ""),
    "bar": ("white", "dark blue", "standout"),
    "part": ("white", "dark cyan", "standout"),
    "victim": ("white", "dark red", "standout"),
    "warning": ("light red", "", "bold"),
    "chosen": ("black", "light gray", "standout"),
}
"""Foreground, background, and the attribute that replaces them without colours."""
_BARS = ("bar", "victim", "part")


class Screen:
    """Runs until q, SIGINT, or a failure of the tracer.  ``keyboard``: the terminal to read keys from."""

    def __init__(self, feed: RecordFeed, keyboard: IO[str]) -> None:
        self._feed = feed
        self._model = IncidentList()
        self._current: ListedIncident | None = None
        self._kills = 0
        self._rows = _Rows(self._model)
        urwid.connect_signal(self._rows, "modified", self._show_detail)
        self._list = urwid.ListBox(self._rows)
        self._detail = urwid.ListBox(urwid.SimpleFocusListWalker([]))
        self._header = urwid.Text("", wrap="clip")
        self._edit = _FilterEdit(self._model_filter, self._leave_filter)
        self._keys = urwid.Text(_KEYS, wrap="clip")
        self._body = _SplitView(self._list, self._detail)
        self._frame = urwid.Frame(self._body, urwid.AttrMap(self._header, "title"), self._keys)
        screen = urwid.raw_display.Screen(input=keyboard)
        self._loop = urwid.MainLoop(
            self._frame,
            _palette(bool(os.environ.get("NO_COLOR"))),
            screen=screen,
            handle_mouse=False,
            unhandled_input=self._key,
        )

    def run(self) -> None:
        """Show records as they arrive."""
        wake_pipe = self._loop.watch_pipe(lambda _: self._add_lines())

        def wake() -> None:
            try:
                os.write(wake_pipe, b".")
            except OSError:  # the screen has ended
                return

        self._show_header()
        self._feed.start(wake)
        try:
            self._loop.run()
        except KeyboardInterrupt:
            return

    def _add_lines(self) -> bool:
        follows = self._rows.focus == 0
        taken = False
        while not self._feed.lines.empty():
            self._model.take(self._feed.lines.get())
            taken = True
        if taken:
            self._rows.keep_focus(None if follows else self._current)
        self._show_header()
        if self._feed.ended and self._feed.exit_code:
            raise urwid.ExitMainLoop
        return True

    def _show_header(self) -> None:
        model = self._model
        shown = f"{len(model.shown)} shown  " if self._edit.edit_text else ""
        warnings = [f"{model.missing} missing"] * bool(model.missing) + [f"{model.bad} bad lines"] * bool(model.bad)
        end = "  ended" if self._feed.ended else ""
        counters = f"{model.incidents} incidents  {model.victims} victims  {shown}{'  '.join(warnings)}"
        source = printable(f"{self._feed.name} {model.started}".strip())
        self._header.set_text(f" oomtrace watch  {counters.rstrip()}{end}  {source}")
        if self._feed.messages and not self._edit_is_open():
            self._keys.set_text([("warning", printable(self._feed.messages[-1]))])

    def _show_detail(self) -> None:
        shown = self._rows.current()
        kills = 0 if shown is None else sum(1 + (kill.exit is not None) for kill in shown.incident.kills)
        if shown is self._current and kills == self._kills:
            return
        self._current, self._kills = shown, kills
        found: Iterable[DetailLine] = () if shown is None else detail_lines(shown.incident)
        self._detail.body[:] = [_widget(line) for line in found]
        if self._detail.body:
            self._detail.set_focus(0)

    def _key(self, key: Any) -> None:
        if key in ("q", "Q"):
            raise urwid.ExitMainLoop
        if key == "/":
            self._frame.footer = urwid.AttrMap(self._edit, "chosen")
            self._frame.focus_position = "footer"
        elif key in ("tab", "enter"):
            self._body.swap()
        elif key in ("j", "k"):
            self._loop.process_input(["down" if key == "j" else "up"])

    def _edit_is_open(self) -> bool:
        return bool(self._frame.focus_position == "footer")

    def _model_filter(self, text: str) -> None:
        self._model.filter(text)
        self._rows.keep_focus(self._current)
        self._show_header()

    def _leave_filter(self) -> None:
        self._frame.footer = self._keys
        self._frame.focus_position = "body"
        text = self._edit.edit_text
        self._keys.set_text(f"filter: {printable(text)}   {_KEYS}" if text else _KEYS)


class _Rows(urwid.ListWalker):  # type: ignore[misc]
    """Makes rows on demand."""

    def __init__(self, model: IncidentList) -> None:
        self._model = model
        self.focus = 0

    def current(self) -> ListedIncident | None:
        shown = self._model.shown
        return shown[self.focus] if self.focus < len(shown) else None

    def keep_focus(self, incident: ListedIncident | None) -> None:
        """Keep the focus on an incident after the list has changed; None: on the newest."""
        shown = self._model.shown
        self.focus = 0
        if incident is not None:
            self.focus = next((at for at, each in enumerate(shown) if each is incident), 0)
        self._modified()

    def __getitem__(self, position: int) -> Any:
        shown = self._model.shown
        if not 0 <= position < len(shown):
            raise IndexError(position)
        when, who, size = list_row(shown[position].incident)
        columns = urwid.Columns(
            [
                (14, urwid.Text(when, wrap="clip")),
                urwid.Text(who, wrap="ellipsis"),
                (21, urwid.Text(size, "right", "clip")),
            ],
            dividechars=1,
        )
        return urwid.AttrMap(_Selectable(columns), None, "chosen")

    def set_focus(self, position: int) -> None:
        self.focus = position
        self._modified()

    def next_position(self, position: int) -> int:
        if position + 1 >= len(self._model.shown):
            raise IndexError(position)
        return position + 1

    def prev_position(self, position: int) -> int:
        if position <= 0:
            raise IndexError(position)
        return position - 1

    def positions(self, reverse: bool = False) -> Iterable[int]:
        found = range(len(self._model.shown))
        return reversed(found) if reverse else found


class _Selectable(urwid.WidgetWrap):  # type: ignore[misc]
    """A row that can have the focus, and handles no keys."""

    def selectable(self) -> bool:
        return True

    def keypress(self, size: Any, key: str) -> str:
        return key


class _SplitView(urwid.WidgetWrap):  # type: ignore[misc]
    """List and detail, side by side or one above the other, depending on the terminal's width."""

    def __init__(self, first: Any, second: Any) -> None:
        framed = (urwid.LineBox(first, "Incidents"), urwid.LineBox(second, "Incident"))
        self._wide = urwid.Columns([("weight", 2, framed[0]), ("weight", 3, framed[1])])
        self._narrow = urwid.Pile([("weight", 2, framed[0]), ("weight", 3, framed[1])])
        self._w: Any
        super().__init__(self._narrow)

    def swap(self) -> None:
        """Move the focus to the other part."""
        self._w.focus_position = 1 - self._w.focus_position

    def render(self, size: Any, focus: bool = False) -> Any:
        self._choose_layout(size)
        return super().render(size, focus)

    def keypress(self, size: Any, key: str) -> Any:
        self._choose_layout(size)
        return super().keypress(size, key)

    def _choose_layout(self, size: Any) -> None:
        layout = self._wide if size[0] >= WIDE_COLUMNS else self._narrow
        if self._w is not layout:
            layout.focus_position = self._w.focus_position
            self._w = layout


class _FilterEdit(urwid.Edit):  # type: ignore[misc]
    """Filters while typing; Enter keeps the filter, Escape clears it."""

    def __init__(self, changed: Any, left: Any) -> None:
        super().__init__("filter: ")
        self._changed, self._left = changed, left

    def keypress(self, size: Any, key: str) -> Any:
        if key == "esc":
            self.set_edit_text("")
        if key in ("esc", "enter"):
            self._changed(self.edit_text)
            self._left()
            return None
        unused = super().keypress(size, key)
        self._changed(self.edit_text)
        return unused if key in ("up", "down") else None


class _Bar(urwid.ProgressBar):  # type: ignore[misc]
    """A bar without a percentage."""

    def get_text(self) -> str:
        return ""


def _palette(no_colour: bool) -> list[tuple[str, str, str, str]]:
    return [
        (name, mono if no_colour else foreground, "" if no_colour else background, mono)
        for name, (foreground, background, mono) in _STYLES.items()
    ]


def _widget(line: DetailLine) -> Any:
    if line.share is not None:
        columns = [
            (_LABEL_COLUMNS, urwid.Text(line.label, wrap="ellipsis")),
            _Bar("", line.style if line.style in _BARS else "bar", line.share * 100, 100),
            (_SIZE_COLUMNS, urwid.Text(line.text, "right", "clip")),
        ]
        return _Selectable(urwid.Columns(columns, dividechars=1))
    if line.style == "heading":
        return _Selectable(urwid.Pile([urwid.Divider(), urwid.Text(("heading", line.text))]))
    if line.label:
        label = (11, urwid.Text(("label", line.label)))
        return _Selectable(urwid.Columns([label, urwid.Text(line.text, wrap="any")]))
    return _Selectable(urwid.Text(("heading", line.text)))
