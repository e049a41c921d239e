"""The part of Sourcegraph's query language that git can answer: text -> ``Query``. Refuses every other term by name."""

from .errors import QueryError
from .model import (
    AllOf,
    AnyOf,
    Expression,
    FileFilter,
    LanguageFilter,
    Query,
    RepositoryContains,
    RepositoryFilter,
    Search,
    Term,
    in_name,
    pattern_holds,
    takes_file,
    takes_repository,
    term_in_name,
    terms,
)
from .plan import default_pattern_type, parse_query, with_count_all

__all__ = [
    "AllOf",
    "AnyOf",
    "Expression",
    "FileFilter",
    "LanguageFilter",
    "Query",
    "QueryError",
    "RepositoryContains",
    "RepositoryFilter",
    "Search",
    "Term",
    "default_pattern_type",
    "in_name",
    "parse_query",
    "pattern_holds",
    "takes_file",
    "takes_repository",
    "term_in_name",
    "terms",
    "with_count_all",
]
