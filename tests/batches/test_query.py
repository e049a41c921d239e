"""Queries: Sourcegraph's grammar and heuristics, what git can answer of it, and one clear error for the rest."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.batches.languages import LANGUAGES, find_language
from flows.batches.query import (
    AllOf,
    AnyOf,
    FileFilter,
    Query,
    QueryError,
    RepositoryContains,
    RepositoryFilter,
    Search,
    Term,
    parse_query,
    pattern_holds,
    takes_file,
    takes_repository,
)
from flows.batches.query.regexps import compile_regexp


def only(text: str, version: int = 1) -> Search:
    [search] = parse_query(text, version=version).alternatives
    return search


@pytest.mark.parametrize(
    ("text", "version", "pattern"),
    [
        ("hello  world", 1, Term("hello world")),
        ("hello world", 2, AllOf((Term("hello"), Term("world")))),
        ('"hello world" x', 1, Term('"hello world" x')),
        ('"hello world" x', 2, AllOf((Term("hello world"), Term("x")))),
        ("'a \"b\" c'", 2, Term('a "b" c')),
        ("baz's", 2, Term("baz's")),
        ("foo /b r/ baz", 1, AllOf((Term("foo"), Term("b r", regexp=True), Term("baz")))),
        (r"/a\/b\d/", 1, Term(r"a/b\d", regexp=True)),
        ("foo /bar/ patterntype:literal", 2, Term("foo /bar/")),
        ("a.b (c|d) patterntype:regexp", 1, Term("(?:a.b).*?(?:(c|d))", regexp=True)),
        ("'a.b' patterntype:regexp", 1, Term("a.b")),
        ('fmt.Sprintf("%d", x)', 1, Term('fmt.Sprintf("%d", x)')),
        ("func main() {", 1, Term("func main() {")),
        ("http://example.com/x", 1, Term("http://example.com/x")),
        (r"a\ b", 1, Term(r"a\ b")),
        ("-x", 1, Term("-x")),
        ("a or b", 1, AnyOf((Term("a"), Term("b")))),
        ("a OR b AND c", 1, AnyOf((Term("a"), AllOf((Term("b"), Term("c")))))),
        ("(a or b) c", 1, AllOf((AnyOf((Term("a"), Term("b"))), Term("c")))),
        ("a NOT b c", 1, AllOf((Term("a"), Term("b", negated=True), Term("c")))),
        ("(foo bar)", 1, Term("(foo bar)")),
        ("(foo bar)", 2, AllOf((Term("foo"), Term("bar")))),
        ("(a and /b-c/)", 1, AllOf((Term("a"), Term("b-c", regexp=True)))),
        ("((((", 1, Term("((((")),
        ("foo( or bar", 1, AnyOf((Term("foo("), Term("bar")))),
        ("or a", 1, Term("or a")),
        ("content:'a b' c", 1, AllOf((Term("a b", content_only=True), Term("c")))),
        ("-content:x", 1, Term("x", negated=True, content_only=True)),
        ("content:/a b/", 2, Term("a b", regexp=True, content_only=True)),
    ],
)
def test_patterns_are_read_as_their_type_says(text: str, version: int, pattern: object) -> None:
    assert only(text, version).pattern == pattern


@pytest.mark.parametrize("alias", ["repo", "r", "REPO"])
def test_fields_have_aliases_in_any_case(alias: str) -> None:
    assert only(f"{alias}:^x$").repositories == (RepositoryFilter("^x$"),)


def test_filters_may_hold_parentheses_spaces_and_quotes() -> None:
    search = only(r"""repo:(a|b c) -file:'x y' file:d\ e""")

    assert search.repositories == (RepositoryFilter("(a|b c)"),)
    assert search.files == (FileFilter("x y", negated=True), FileFilter(r"d\ e"))


def test_not_before_a_filter_is_its_minus() -> None:
    assert only("NOT file:x").files == only("-file:x").files == (FileFilter("x", negated=True),)


def test_filters_around_alternatives_hold_for_all_of_them() -> None:
    """Sourcegraph's heuristic; explicit parentheses switch it off."""
    assert only("repo:x a or b file:y") == only("repo:x file:y (a or b)")
    assert [search.pattern for search in parse_query("(repo:x a) or b").alternatives] == [Term("a"), Term("b")]


def test_alternatives_of_filters_are_searched_one_by_one() -> None:
    query = parse_query("(repo:a or repo:b) lang:go x")

    assert [search.repositories for search in query.alternatives] == [
        (RepositoryFilter("a"),),
        (RepositoryFilter("b"),),
    ]
    assert all(search.pattern == Term("x") for search in query.alternatives)


@pytest.mark.parametrize(
    ("text", "contains"),
    [
        ("repo:has.file(path:a(b|c) content:'x y')", RepositoryContains("a(b|c)", "x y")),
        ("-repo:has.path(go.mod)", RepositoryContains("go.mod", negated=True)),
        ("repo:contains.file(go.mod)", RepositoryContains("go.mod")),
        ("repo:contains(file:go.mod content:x)", RepositoryContains("go.mod", "x")),
        ("repo:has.content(a b)", RepositoryContains(content="a b")),
        ("repohasfile:go.mod", RepositoryContains("go.mod")),
        ("-repohasfile:go.mod", RepositoryContains("go.mod", negated=True)),
    ],
)
def test_repositories_can_be_asked_for_files(text: str, contains: RepositoryContains) -> None:
    assert only(text).contains == (contains,)


def test_files_can_be_asked_for_content() -> None:
    assert only("file:has.content(a b) -file:contains.content(c)").files == (
        FileFilter("a b", of="content"),
        FileFilter("c", negated=True, of="content"),
    )


def test_revisions_stand_behind_an_at_or_in_rev() -> None:
    assert only("repo:x@v1:refs/heads/dev").revisions == only("repo:x rev:v1:dev").revisions == ("v1", "dev")
    assert only("-repo:x@v1").revisions == ()


def test_count_limits_the_results() -> None:
    assert parse_query("x count:5").count == 5
    assert parse_query("x count:all").count is parse_query("x").count is None


@pytest.mark.parametrize("text", ["archived:yes", "fork:no", "timeout:30s", "context:global", "visibility:any"])
def test_what_changes_nothing_here_is_accepted(text: str) -> None:
    assert parse_query(f"x {text}") == parse_query("x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("author:me x", '"author:me" cannot be answered from git: only the files of one commit'),
        ("-after:yesterday x", '"-after:yesterday" cannot be answered from git'),
        ("type:diff x", '"type:diff" cannot be answered from git: use type:repo'),
        ("patterntype:structural x", '"patterntype:structural" cannot be answered from git'),
        ("repo:has.topic(x)", '"repo:has.topic(x)" cannot be answered from git: only a code host'),
        ("file:has.owner(x)", '"file:has.owner(x)" cannot be answered from git'),
        ("repo:has.commit.after(1 week ago)", "not the history"),
        ("context:@me", '"context:@me" cannot be answered from git'),
        ("archived:only", '"archived:only" cannot be answered from git'),
        ("visibility:private", '"visibility:private" cannot be answered from git'),
        ("select:symbol x", '"select:symbol" cannot be answered from git'),
        ("repo:x@*refs/heads/*", "name branches, tags or commits"),
        ("repo:x@v1 rev:v2", '"rev:v2": the revision is given twice'),
        ("rev:v1", "rev: needs a repo:"),
        ("lang:klingon", "'klingon' is not known here"),
        ("case:maybe", '"case:maybe": the value is yes or no'),
        ("count:many", '"count:many": the count is a positive number or all'),
        ("repo:(", "invalid regular expression '('"),
        ("/[a/", "invalid regular expression '[a'"),
        ("a or ", '"or" needs a term on both sides'),
        ("not not:x (a or b) not (a or b)", "NOT cannot stand before a group"),
        ("NOT -repo:x", 'unexpected NOT before "-repo:x"'),
        ("repo:'x", "begins with ' and does not end with it"),
        ("repo:has.file(", "repo:has.file( lacks its closing parenthesis"),
        ("  ", "the query is empty"),
        (r"/a\nb/", "reaches over lines"),
        ('content:"a\nb"', "reaches over lines"),
        ("file:" + "x" * 3000, "is longer than 2000 characters"),
        (" or ".join(f"repo:{n} or file:{n}" for n in range(150)), "more than 200 alternatives"),
        ("( a or " * 200, "more than 100 levels"),
    ],
)
def test_what_git_cannot_answer_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        parse_query(text)


def test_a_repository_is_a_result_only_where_nothing_is_asked_about_its_files() -> None:
    assert only("repo:x").finds_repositories
    assert only("x").finds_repositories
    assert not only("repo:x file:y").finds_repositories
    assert not only("repo:x lang:go").finds_repositories
    assert not only("content:x").finds_repositories
    assert not only("NOT x").finds_repositories
    assert not only("type:path x").finds_repositories


def test_files_are_results_where_something_is_asked_about_them() -> None:
    assert not only("repo:x").finds_files
    assert only("repo:x file:y").finds_files
    assert only("x").finds_files
    assert only("repo:x type:path").finds_files
    assert not only("x type:repo").finds_files


def test_names_are_matched_anywhere_and_in_any_case_unless_case_is_asked_for() -> None:
    assert takes_repository(only("repo:ACME/ -repo:old"), "github.com/acme/app")
    assert not takes_repository(only("repo:ACME/ case:yes"), "github.com/acme/app")
    assert not takes_repository(only("repo:acme -repo:app$"), "github.com/acme/app")
    assert takes_file(only("file:readme -file:^vendor/"), "docs/README.md")
    assert not takes_file(only("file:readme -file:^vendor/"), "vendor/README.md")


@pytest.mark.parametrize(
    ("language", "path", "covered"),
    [
        ("go", "cmd/main.go", True),
        ("golang", "main.go", True),
        ("C++", "a.HPP", True),
        ("dockerfile", "build/Dockerfile", True),
        ("dockerfile", "build/Dockerfile.md", False),
        ("typescript", "a.tsx", True),
        ("Ruby", "Gemfile", True),
        ("make", "Makefile", True),
        ("shell", "a/.bashrc", True),
        ("python", "a.pyc", False),
    ],
)
def test_languages_are_told_by_the_file_name(language: str, path: str, covered: bool) -> None:
    assert takes_file(only(f"lang:{language}"), path) is covered
    assert takes_file(only(f"-lang:{language}"), path) is not covered


def test_languages_have_unique_names_and_lower_case_extensions() -> None:
    assert len({language.name.lower() for language in LANGUAGES}) == len(LANGUAGES)
    for language in LANGUAGES:
        assert find_language(language.name) is language
        assert all(ext.startswith((".", "_")) and ext == ext.lower() for ext in language.extensions), language
        assert language.extensions or language.filenames


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (r"^[[:alpha:]]+\z", "abc", True),
        (r"^[[:alpha:]]+\z", "ab1", False),
        (r"\Qa.b\E$", "xa.b", True),
        (r"\Qa.b\E$", "xaxb", False),
        ("(?P<x>a)b", "ab", True),
        ("(?<x>a)b", "ab", True),
        ("(?i)AB", "ab", True),
        ("(?:a|b){2,3}$", "xab", True),
        (r"^(.*/)*package\.json$", "a/b/package.json", True),
        (r"(\w+/)+x", "a/b/x", True),
        (r"[\]a]", "]", True),
        ("[]a]", "]", True),
        ("[^[:space:]-]", "-", False),
    ],
)
def test_go_regular_expressions_mean_the_same_here(pattern: str, name: str, found: bool) -> None:
    assert bool(compile_regexp(pattern).search(name)) is found


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a*)*", "((a+)?)+", "(.*)*x", "(a+|b*)+", "(?:a{2,})*", "(x+x+)+y", "(a?b*)+"]
)
def test_loops_of_nothing_but_loops_are_refused(pattern: str) -> None:
    with pytest.raises(QueryError, match="repeats a repetition"):
        compile_regexp(pattern)


@pytest.mark.parametrize("pattern", ["(?=a)", "(?!a)", "(?<=a)", r"(a)\1", "a*+", "(?>a)", r"\p{Greek}", "a(?i)b"])
def test_what_re2_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(QueryError):
        compile_regexp(pattern)


SIGNS = [*"ab  ()/\"'\\|*+[]{}:-@.?^\n"]
PHRASES = (
    " or ",
    " and ",
    "not ",
    "repo:",
    "file:",
    "-file:",
    "lang:go",
    "content:",
    "has.file(",
    "patterntype:regexp ",
)
ALPHABET = st.sampled_from([*SIGNS, *PHRASES])


@given(st.lists(ALPHABET, max_size=25).map("".join), st.sampled_from([0, 1, 2]))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_query_or_a_query_error(text: str, version: int) -> None:
    began = time.monotonic()
    try:
        query = parse_query(text, version=version)
    except QueryError:
        query = Query((Search(),))
    assert query.alternatives
    assert time.monotonic() - began < 2


@given(st.lists(ALPHABET, max_size=12).map("".join))
@settings(max_examples=200, deadline=None)
def test_any_accepted_regular_expression_ends_soon(pattern: str) -> None:
    try:
        compiled = compile_regexp(pattern)
    except QueryError:
        return
    began = time.monotonic()
    for name in ("a" * 60 + "!", "ab" * 30 + "!", "a/b" * 20):
        compiled.search(name)
    assert time.monotonic() - began < 2


WORDS = st.from_regex(r"\A[a-z]{1,6}\Z").filter(lambda word: word not in ("and", "or", "not"))
EXPRESSIONS = st.recursive(
    st.builds(Term, WORDS, negated=st.booleans()),
    lambda inner: st.one_of(
        st.builds(AllOf, st.tuples(inner, inner)),
        st.builds(AnyOf, st.tuples(inner, inner)),
    ),
    max_leaves=8,
)


def printed(expression: Term | AllOf | AnyOf) -> str:
    if isinstance(expression, Term):
        return f"{'NOT ' if expression.negated else ''}{expression.text}"
    joined = (" AND " if isinstance(expression, AllOf) else " OR ").join(map(printed, expression.parts))
    return f"({joined})"


@given(EXPRESSIONS, st.sets(WORDS), st.sampled_from([1, 2]))
def test_a_printed_expression_means_the_same_when_it_is_read(
    expression: Term | AllOf | AnyOf, present: set[str], version: int
) -> None:
    read = only(printed(expression), version).pattern

    assert read is not None
    assert pattern_holds(read, lambda term: term.text in present) == pattern_holds(
        expression, lambda term: term.text in present
    )
