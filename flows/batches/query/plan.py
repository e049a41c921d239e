"""Query text -> ``Query``: the tree is spread into alternatives, and neighbouring patterns are joined by type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .errors import QueryError
from .filters import build_search
from .model import AllOf, AnyOf, Expression, Query, Search, Term, terms
from .regexps import check_content_pattern, compile_regexp
from .syntax import Node, Operator, Parameter, Pattern, PatternType, parse, walk

_COUNT = re.compile(r"\bcount:(\d+|all)\b")
_PATTERN_TYPE = re.compile(r"(?<![\w-])patterntype:(\w*)", re.IGNORECASE)
_PATTERN_TYPES: dict[str, PatternType] = {
    "literal": "literal",
    "standard": "standard",
    "regexp": "regexp",
    "regex": "regexp",
    "keyword": "keyword",
}
_MOST_ALTERNATIVES = 200


def default_pattern_type(version: int) -> PatternType:
    """The pattern type of a spec version (0 is a spec without one), unless the query has a `patterntype:`."""
    return "keyword" if version >= 2 else "standard"


def with_count_all(query: str) -> str:
    """The query as upstream sends it: all results, unless it says how many."""
    return query if _COUNT.search(query) else f"{query} count:all"


def parse_query(text: str, *, version: int = 1) -> Query:
    """Parse a query of a batch spec of ``version``. Raises QueryError."""
    pattern_type = _pattern_type(text, version)
    tree = parse(text, pattern_type)
    if tree is None:
        raise QueryError("the query is empty")
    alternatives = tuple(_search(filters, patterns, pattern_type) for filters, patterns in _alternatives(tree))
    return Query(alternatives, _count(tree))


def _pattern_type(text: str, version: int) -> PatternType:
    match = _PATTERN_TYPE.search(text)
    if match is None:
        return default_pattern_type(version)
    known = _PATTERN_TYPES.get(match[1].lower())
    if known is None:
        raise QueryError(f'"{match[0]}" cannot be answered from git: use literal, standard, keyword or regexp')
    return known


def _count(tree: Node) -> int | None:
    counts = [leaf.value for leaf in walk(tree) if isinstance(leaf, Parameter) and leaf.field == "count"]
    if not counts or counts[-1].lower() == "all":
        return None
    if not re.fullmatch(r"[0-9]{1,9}", counts[-1]) or int(counts[-1]) == 0:
        raise QueryError(f'"count:{counts[-1]}": the count is a positive number or all')
    return int(counts[-1])


_Alternative = tuple[tuple[Parameter, ...], tuple[Node, ...]]


def _alternatives(node: Node) -> list[_Alternative]:
    """The disjunctive normal form over filters; what holds patterns only stays whole."""
    if isinstance(node, Parameter):
        return [((node,), ())]
    if isinstance(node, Pattern) or not any(isinstance(leaf, Parameter) for leaf in walk(node)):
        return [((), (node,))]
    of_operands = [_alternatives(operand) for operand in node.operands]
    if node.kind == "or":
        return _limited([alternative for alternatives in of_operands for alternative in alternatives])
    found: list[_Alternative] = [((), ())]
    for alternatives in of_operands:
        found = _limited([(f + more_f, p + more_p) for f, p in found for more_f, more_p in alternatives])
    return found


def _limited(alternatives: list[_Alternative]) -> list[_Alternative]:
    if len(alternatives) > _MOST_ALTERNATIVES:
        raise QueryError(
            f"the query has more than {_MOST_ALTERNATIVES} alternatives: split it into several `on` entries"
        )
    return alternatives


def _search(filters: tuple[Parameter, ...], patterns: tuple[Node, ...], pattern_type: PatternType) -> Search:
    contents = [_content_term(filter, pattern_type) for filter in filters if filter.field == "content"]
    expressions = [*contents, *(_expression(node, pattern_type) for node in patterns)]
    search = build_search([filter for filter in filters if filter.field != "content"])
    search = replace(search, pattern=_all_of(expressions) if expressions else None)
    _check_patterns(search)
    return search


def _check_patterns(search: Search) -> None:
    """Compile what names and paths are matched with, and refuse what git cannot look for."""
    names = [filter.pattern for filter in search.repositories] + [filter.path for filter in search.contains]
    names += [filter.pattern for filter in search.files if filter.of == "path"]
    contents = [(filter.content, True) for filter in search.contains]
    contents += [(filter.pattern, True) for filter in search.files if filter.of == "content"]
    for term in terms(search.pattern):
        contents.append((term.text, term.regexp))
        if term.regexp and not term.content_only:
            names.append(term.text)
    for name in names:
        compile_regexp(name, case_sensitive=search.case_sensitive)
    for content, regexp in contents:
        check_content_pattern(content, regexp=regexp)


def _content_term(filter: Parameter, pattern_type: PatternType) -> Term:
    regexp = pattern_type == "regexp" or filter.delimiter == "/"
    return Term(filter.value, regexp, filter.negated, content_only=True)


def _expression(node: Node, pattern_type: PatternType) -> Expression:
    if isinstance(node, Pattern):
        return Term(node.text, node.kind == "regexp", node.negated)
    assert isinstance(node, Operator)  # filters were taken out before
    if node.kind == "concat":
        return _all_of([_expression(part, pattern_type) for part in _joined_neighbours(node.operands, pattern_type)])
    parts = tuple(_expression(operand, pattern_type) for operand in node.operands)
    return AllOf(parts) if node.kind == "and" else AnyOf(parts)


def _joined_neighbours(nodes: tuple[Node, ...], pattern_type: PatternType) -> Iterator[Node]:
    """What stands side by side: one text with a space (literal, standard), one after the other on a line (regexp), or
    each by itself (keyword). Negated patterns and groups stay by themselves."""
    run: list[Pattern] = []
    for node in nodes:
        if isinstance(node, Pattern) and _joins(node, pattern_type):
            run.append(node)
        else:
            yield from _joined(run)
            run = []
            yield node
    yield from _joined(run)


def _joins(pattern: Pattern, pattern_type: PatternType) -> bool:
    if pattern.negated or pattern_type == "keyword":
        return False
    return pattern_type != "standard" or pattern.kind == "literal"


def _joined(run: list[Pattern]) -> Iterator[Pattern]:
    if len(run) == 1 or not run:
        yield from run
    elif all(pattern.kind == "literal" and not pattern.quoted for pattern in run):
        yield Pattern(" ".join(pattern.text for pattern in run), "literal")
    else:
        texts = (re.escape(pattern.text) if pattern.kind == "literal" else pattern.text for pattern in run)
        yield Pattern(".*?".join(f"(?:{text})" for text in texts), "regexp")


def _all_of(expressions: list[Expression]) -> Expression:
    return expressions[0] if len(expressions) == 1 else AllOf(tuple(expressions))
