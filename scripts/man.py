#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""man.py: manual pages, made of what the headers and the command say of themselves.

man.py headers VERSION FOLDER HEADER...   section 3 into FOLDER: a page a header, and for each of
                                          its functions a page that leads there
man.py command VERSION FOLDER NAME=FILE...  section 1 into FOLDER: of each NAME (viommu,
                                          viommu-run) a page, FILE being what its --help prints

A header is: an opening comment; then declarations, each with a comment right above it or above the
ones right before it. Its comment becomes paragraphs, what is indented in it stays as it is. A
structure is shown as it is written, with the comments of its members.
"""

import os
import re
import sys
import time


# ---- roff

def escape(text):
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def line_of(text):
    """A line that is no request, whatever it begins with, and not empty."""
    text = escape(text) or "\\&"
    return "\\&" + text if text[:1] in (".", "\\") and text[:2] != "\\-" else text


def verbatim(lines):
    return [".PP", ".in +4n", ".nf"] + [line_of(line.rstrip()) for line in lines] + \
           [".fi", ".in"]


def emphasis(line):
    """`name` in bold, *word* in italics; `line` is escaped already."""
    line = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", line)
    return re.sub(r"(?<!\S)\*(\w+)\*(?!\w)", r"\\fI\1\\fR", line)


def paragraph(lines):
    return [".PP"] + [emphasis(line_of(line.strip())) for line in lines]


def text_blocks(lines):
    """Lines of a text as paragraphs; what is indented by 4 or more is left as it is."""
    out, block, indented = [], [], False

    def flush():
        nonlocal block
        while block and not block[-1].strip():
            block.pop()
        if block:
            cut = min(len(b) - len(b.lstrip()) for b in block if b.strip())
            out.extend(verbatim([b[cut:] for b in block]) if indented else paragraph(block))
        block = []

    for line in lines:
        deep = line.startswith("    ")
        if not line.strip():
            if indented:
                block.append("")
            else:
                flush()
        else:
            if deep != indented:
                flush()
                indented = deep
            block.append(line)
    flush()
    return out


def page(name, section, version, body):
    when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    head = ['.\\" SPDX-License-Identifier: BSD-2-Clause',
            '.\\" Made by scripts/man.py.',
            '.TH "%s" "%s" "%s" "viommu %s" "viommu"' % (
                escape(name), section, time.strftime("%Y-%m-%d", when), version)]
    lines = []
    for line in head + body:
        if line == ".PP" and lines[-1].startswith((".SH", ".SS", ".PP")):
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


def write(folder, name, text):
    with open(os.path.join(folder, name), "w") as f:
        f.write(text)


def begin_folder(folder):
    """Empties it: a function that is gone leaves no page."""
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))


# ---- section 3

COMMENT = re.compile(r"/\*(.*?)\*/", re.S)


def comment_lines(comment):
    """The text of a comment, without the stars."""
    lines = comment.strip("\n").splitlines()
    lines = [re.sub(r"^\s*\* ?", "", line.rstrip()) if number or line.startswith(" *") else line
             for number, line in enumerate(lines)]
    while lines and not lines[0].strip():
        lines.pop(0)
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() if number == 0 else line for number, line in enumerate(lines)]


class Entry:
    """Declarations that share a comment."""

    def __init__(self, comment):
        self.comment = comment
        self.code = []   # declarations as they are written
        self.functions = []
        self.title = None


def declaration_end(text, at):
    """Where the declaration that begins at `at` ends: behind its ; or, a function's body, its }."""
    depth = 0
    while at < len(text):
        comment = text.startswith("/*", at)
        if comment:
            at = text.index("*/", at) + 2
            continue
        char = text[at]
        depth += (char in "({") - (char in ")}")
        at += 1
        if depth == 0 and (char == ";" or (char == "}" and not
                                           re.match(r"\s*[\w\s,*]*;", text[at:]))):
            break
    return at


def classify(code, entry):
    plain = COMMENT.sub("", code)
    kind = re.match(r"(struct|enum|union)\s+(\w+)\s*(\{)?", plain)
    if kind and kind.group(3):
        entry.title = entry.title or "%s %s" % (kind.group(1), kind.group(2))
    elif kind and re.fullmatch(r"(struct|enum|union)\s+\w+;", plain.strip()):
        return False  # says no more than that there is one
    elif plain.startswith("typedef"):
        name = re.match(r"typedef\s+.*?\(?\*?\b(\w+)\)?\s*(\(|;)", plain, re.S)
        entry.title = entry.title or name.group(1)
    elif plain.startswith("#define"):
        entry.title = entry.title or plain.split()[1]
    else:
        name = re.match(r"[\w\s*]+?\b(\w+)\(", plain)
        if not name:
            return False
        entry.functions.append(name.group(1))
    return True


def parse(text):
    """(opening comment, [Entry...]) of a header."""
    opening, entries, comment, entry = None, [], [], None
    at = 0
    while at < len(text):
        rest = text[at:]
        blank = re.match(r"[ \t]*\n", rest)
        directive = re.match(r"#(.*\\\n)*.*\n|extern \"C\" \{\n|\}\n", rest)
        if blank:
            at += blank.end()
            comment, entry = [], None
        elif rest.startswith("/*"):
            end = text.index("*/", at) + 2
            words = comment_lines(text[at + 2:end - 2])
            at = end + len(re.match(r"[ \t]*\n?", text[end:]).group())
            if words and not words[0].startswith("SPDX-"):
                if opening is None:
                    opening = words
                else:
                    comment, entry = words, None
        elif directive and not (rest.startswith("#define VIOMMU_") and
                                not re.match(r"#define \w+_H\n", rest)):
            at += directive.end()
            comment, entry = [], None
        else:
            end = (at + directive.end()) if directive else declaration_end(text, at)
            code = text[at:end].strip("\n")
            if not directive:  # which ends with its line
                end += len(re.match(r"[ \t]*\n?", text[end:]).group())
            at = end
            if code.startswith("static inline"):
                code = code[:code.index("{")].strip() + ";"
            if entry is None:
                entry = Entry(comment)
            if classify(code, entry):
                entry.code.append(code)
                if entry not in entries:
                    entries.append(entry)
    return opening or [], entries


def first_sentence(lines):
    """For the NAME line: one sentence, no full stop, a small letter unless it is a name."""
    text = " ".join(" ".join(lines).split())
    text = re.split(r"[.:](?=\s|$)", text)[0]
    return text[0].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text


def header_page(name, include, version, opening, entries, others):
    functions = [f for e in entries for f in e.functions]
    body = [".SH NAME", "%s \\- %s" % (", ".join(escape(n) for n in
                                                   [name] + [f for f in functions if f != name]),
                                       escape(first_sentence(opening)))]
    body += [".SH SYNOPSIS", ".nf", "#include <%s>" % escape(include)]
    for entry in entries:
        if entry.functions:
            body.append("\\&")
            body += [line_of(line) for code in entry.code for line in code.splitlines()]
    body += [".fi", ".SH DESCRIPTION"] + text_blocks(opening)
    types = [e for e in entries if not e.functions]
    if types:
        body.append(".SH TYPES")
    for entry in types:
        body.append(".SS %s" % escape(entry.title))
        body += text_blocks(entry.comment)
        body += verbatim([line for code in entry.code for line in code.splitlines()])
    if functions:
        body.append(".SH FUNCTIONS")
    for entry in entries:
        if entry.functions:
            body.append('.SS "%s"' % ", ".join(escape(f) for f in entry.functions))
            body += text_blocks(entry.comment)
    body += [".SH SEE ALSO", ", ".join(escape(other) + "(3)" for other in others if other != name)]
    return page(name, 3, version, body)


def page_name(header):
    """viommu.h describes all: it is viommu(3)."""
    stem = os.path.splitext(os.path.basename(header))[0]
    return "viommu" if stem == "viommu" else "viommu_" + stem


def headers(version, folder, paths):
    begin_folder(folder)
    names = sorted(page_name(path) for path in paths)
    for path in paths:
        name = page_name(path)
        with open(path) as f:
            opening, entries = parse(f.read())
        write(folder, name + ".3", header_page(
            name, "viommu/" + os.path.basename(path), version, opening, entries, names))
        for function in [f for e in entries for f in e.functions]:
            if function not in names:
                write(folder, function + ".3", ".so man3/%s.3\n" % name)


# ---- section 1

# As argp prints them: at column 2, or 6 without a short name.
OPTION = re.compile(r"^(?: {2}| {6})(-{1,2}[\w?].*?)(?: {2,}(\S.*))?$")


def help_parts(text):
    """The usage lines, and the rest."""
    lines = text.splitlines()
    usage = []
    while lines and (not usage or lines[0].startswith(" ")):
        usage.append(lines.pop(0))
    return usage, lines


def help_body(lines):
    """What --help prints after its usage: options as a list, paragraphs, what is indented as is."""
    out, text, options, notes, status = [], [], False, False, False

    def flush():
        nonlocal text
        out.extend(text_blocks([re.sub(r"^(?= *\S)(?= )", "    ", line) for line in text]))
        text = []

    for line in lines:
        option = OPTION.match(line) if not notes else None
        if option:
            flush()
            if not options:
                out.append(".SH OPTIONS")
                options = True
            out.extend([".TP", ".B %s" % escape(option.group(1))])
            if option.group(2):
                out.append(line_of(option.group(2)))
        elif options and not notes and line.startswith(" " * 20):
            out.append(line_of(line.strip()))  # a long option: the rest is on the next line
        elif options and not notes and re.match(r"^ \S.*:$", line):
            flush()
            out.append(".SS " + escape(line.strip().rstrip(":")))  # a group of options
        elif line.startswith("Exit status:"):
            flush()
            out.append(".SH EXIT STATUS")
            text.append(line[len("Exit status:"):].strip().capitalize())
            notes, status = False, True
        else:
            if status and not line:
                flush()
                options, status = True, False
            if options and line and not notes and not status:
                out.append(".SH OPERATIONS" if line.startswith("Operations") else ".SH NOTES")
                notes = True
            text.append(line)
    flush()
    return out


def summaries(text):
    """{sub-command: what it does} as the command itself lists them."""
    return dict(re.findall(r"^  (\w+) {2,}(\S.*)$", text, re.M))


def command_page(name, version, text, does, others):
    usage, rest = help_parts(text)
    body = [".SH NAME", "%s \\- %s" % (escape(name), escape(does)), ".SH SYNOPSIS", ".nf"]
    body += [line_of(re.sub(r"^\s*([Uu]sage:|or:)?\s*", "", line)) for line in usage]
    body += [".fi", ".SH DESCRIPTION"] + help_body(rest)
    body += [".SH SEE ALSO", ", ".join(escape(other) + "(1)" for other in others if other != name) +
             ", viommu(3)"]
    return page(name, 1, version, body)


def command(version, folder, pairs):
    begin_folder(folder)
    texts = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        with open(path) as f:
            texts[name] = f.read()
    listed = summaries(texts["viommu"])
    for name, text in texts.items():
        does = listed.get(name[len("viommu-"):]) or first_sentence(
            help_parts(text)[1][:1])
        write(folder, name + ".1", command_page(name, version, text, does, sorted(texts)))


def main():
    if len(sys.argv) < 5 or sys.argv[1] not in ("headers", "command"):
        print(__doc__, file=sys.stderr)
        return 2
    (headers if sys.argv[1] == "headers" else command)(sys.argv[2], sys.argv[3], sys.argv[4:])
    os.utime(sys.argv[3])  # what was made is newer than what it was made of
    return 0


if __name__ == "__main__":
    sys.exit(main())
