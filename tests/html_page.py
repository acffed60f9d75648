"""A parser of HTML that checks that every tag is closed."""

import json
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """What a page consists of; raises AssertionError where a tag is not closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.attributes.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables[attributes["id"]] = []
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag in ("th", "td"):
            list(self.tables.values())[-1][-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, text: str) -> None:
        if "td" in self.open or "th" in self.open:
            list(self.tables.values())[-1][-1][-1] += text
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += text
        else:
            self.texts.append(text)

    def values(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [attributes[name] for _, attributes in self.attributes if name in attributes]

    @property
    def charts(self) -> list[dict]:
        return [json.loads(text) for text in self.scripts if text.startswith("{")]
