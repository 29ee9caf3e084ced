"""XML of others, read without entities of their own, and text that XML can hold."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from ...errors import DataError
from ..plain_text import one_line

_NOT_IN_XML = re.compile("[\ufffe\uffff]")
_DOCTYPE = re.compile(r"<!DOCTYPE[^>]*\[|<!ENTITY", re.IGNORECASE)
_DECLARED = re.compile(r"^\s*<\?xml[^>]*\?>")


def xml_text(text: str, *, escaped: bool = True) -> str:
    """Return text on one line, without what XML cannot hold, and by default with its characters escaped."""
    plain = _NOT_IN_XML.sub("", one_line(text))
    return escape(plain, {'"': "&quot;"}) if escaped else plain


def parse_xml(text: str) -> ElementTree.Element:
    """Return the root of a document.

    Raises
    ------
    DataError
        It is no XML, or defines entities, which may unfold to any size.
    """
    if _DOCTYPE.search(text):
        raise DataError("the XML defines entities, which no transcript needs")
    try:
        return ElementTree.fromstring(_DECLARED.sub("", text))
    except ElementTree.ParseError as error:
        raise DataError(f"no XML: {error}") from None
