# SPDX-License-Identifier: Apache-2.0
"""BibTeX for a row of the catalogue: what `xloss.cite` writes."""

import re
import unicodedata

from xloss.catalogue.papers import PAPERS
from xloss.catalogue.rows import Entry, Method

#: Venues that publish volumes, not proceedings.
_JOURNALS = {
    "JASA": "Journal of the American Statistical Association",
    "JMLR": "Journal of Machine Learning Research",
    "Monthly Weather Review": "Monthly Weather Review",
    "TMLR": "Transactions on Machine Learning Research",
}
#: Combining character -> the command that puts it on a letter.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030c": "v ",
}


def bibtex(row: Entry | Method) -> str:
    """Returns the BibTeX entry of a row's paper; see `xloss.cite`."""
    authors, appeared = PAPERS[row.arxiv or row.title]
    venue, _, year = appeared.rpartition(" ")
    fields = {"title": f"{{{row.title}}}", "author": authors}
    if venue:
        fields["journal" if venue in _JOURNALS else "booktitle"] = _JOURNALS.get(venue, venue)
    fields["year"] = year
    if row.arxiv:
        fields |= {"eprint": row.arxiv, "archivePrefix": "arXiv"}
    kind = "article" if venue in _JOURNALS else "inproceedings" if venue else "misc"
    lines = [f"  {field} = {{{_latex(value)}}}," for field, value in fields.items()]
    return "\n".join([f"@{kind}{{{_key(authors, year, row.title)},", *lines, "}"])


def _key(authors: str, year: str, title: str) -> str:
    """First author, year and first word of the title that is no particle."""
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", title)]
    word = next(word for word in words if word not in {"a", "an", "in", "of", "on", "the"})
    surname = unicodedata.normalize("NFKD", authors.split(",")[0])
    return re.sub(r"[^a-z]", "", surname.lower()) + year + word


def _latex(text: str) -> str:
    """Accents as LaTeX commands: every BibTeX reads ASCII."""
    decomposed = unicodedata.normalize("NFD", text)
    return re.sub(
        rf"(\w)([{''.join(_ACCENTS)}])", lambda m: f"{{\\{_ACCENTS[m[2]]}{m[1]}}}", decomposed
    )
