r"""The paper's equation numbers: `\tag{21}` becomes an anchor, `Eq. 21`, `Eq. 15 and 16`, `B.3-B.7` links."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

HOME = "nbs/00_derivation"  # where the numbers lead; other pages may print an equation again
NUMBER = r"(?:[AB]\.)?\d+"
SEVERAL = rf"{NUMBER}(?:(?:-|–|, | and | or | to ){NUMBER})*"
# Numbers after "Eq."; of an appendix, with a dot; in brackets on the equations' own page, such as "(16)".
MENTION = re.compile(rf"Eqs?\.\s+{SEVERAL}|(?<!Appendix )(?<![\w.])[AB]\.\d+(?![\w.]\w)|(?<=\()\d\d?(?=\))")
NOT_IN = (
    nodes.title,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.reference,
    nodes.raw,
    nodes.comment,
    addnodes.pending_xref,
    addnodes.desc_signature,
)


def anchor(number):
    """The id of an equation on its page."""
    return "eq-" + number.lower().replace(".", "-")


def ancestors(node):
    while node.parent is not None:
        node = node.parent
        yield node


class PaperNumbers(SphinxTransform):
    """Number the equations as the paper does, and link what mentions them."""

    default_priority = 10

    def apply(self):
        for node in list(self.document.findall(nodes.math_block)):
            self.number(node)
        for text in list(self.document.findall(nodes.Text)):
            if not any(isinstance(above, NOT_IN) for above in ancestors(text)):
                self.link(text)

    def number(self, node):
        tag = re.search(r"\\tag\{([^}]*)\}", node.astext())
        if not tag:
            return
        docname, number = self.env.docname, tag[1]
        label = anchor(number) if docname == HOME else f"{docname}-{anchor(number)}"
        text = node.astext().replace(tag[0], "").strip()
        new = nodes.math_block(text, text, nowrap=False, number=number, label=label, docname=docname)
        new["no-wrap"] = False
        new["ids"] = [anchor(number)]
        self.env.get_domain("math").equations[label] = (docname, number)
        node.replace_self(new)

    def link(self, text):
        words = text.astext()
        parts, last = [], 0
        for mention in MENTION.finditer(words):
            bracketed = mention[0].isdigit()
            if bracketed and self.env.docname != HOME:
                continue
            for one in re.finditer(rf"(?:Eqs?\.\s+)?{NUMBER}", mention[0]):
                start, end = mention.start() + one.start(), mention.start() + one.end()
                number = re.search(NUMBER, one[0])[0]
                parts += [nodes.Text(words[last:start]), self.reference(one[0], number)]
                last = end
        if parts:
            parts.append(nodes.Text(words[last:]))
            text.parent.replace(text, [part for part in parts if part.astext()])

    def reference(self, words, number):
        target = {"reftype": "paper-equation", "reftarget": anchor(number), "refexplicit": True}
        content = nodes.inline(words, words)
        return addnodes.pending_xref("", content, refdomain="", refdoc=self.env.docname, **target)


def resolve(app, env, node, content):
    """The link to an equation; plain words if the derivation does not print it."""
    if node.get("reftype") != "paper-equation":
        return None
    if node["reftarget"] not in env.get_domain("math").equations:
        return nodes.inline("", content.astext())
    uri = app.builder.get_relative_uri(node["refdoc"], HOME)
    reference = nodes.reference(
        "", "", internal=True, refuri=f"{uri}#{node['reftarget']}", classes=["equation"]
    )
    reference += content
    return reference


def drop_copied_ids(app, doctree, docname):
    """The theme wraps tables and equations, and gives the wrapper the same id."""
    for wrapper in doctree.findall(nodes.container):
        if {"math-wrapper", "table-wrapper"} & set(wrapper["classes"]):
            wrapper["ids"] = []


def setup(app):
    app.connect("doctree-resolved", drop_copied_ids)
    app.add_transform(PaperNumbers)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
