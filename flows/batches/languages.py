"""Languages by file name, under the names that Sourcegraph's `lang:` takes (those of GitHub's linguist).

Extensions that several languages share (.h, .m, .pl) are given to each of them, as `lang:` does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language: how its files are called. ``extensions`` begin with a dot and are in lower case."""

    name: str
    extensions: tuple[str, ...]
    filenames: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Whether a file of that path is of this language."""
        name = path.rpartition("/")[2]
        return name in self.filenames or name.lower().endswith(self.extensions)


def find_language(name: str) -> Language | None:
    """The language of that name or alias, in upper or lower case; None if it is not in the table."""
    return _BY_NAME.get(name.strip().lower())


def _language(name: str, extensions: str, filenames: str = "", aliases: str = "") -> Language:
    return Language(name, tuple(extensions.split()), tuple(filenames.split()), tuple(aliases.split()))


LANGUAGES = (
    _language("Ada", ".adb .ada .ads"),
    _language("Assembly", ".asm .a51 .i .inc .nas .nasm .s", aliases="asm nasm"),
    _language("Astro", ".astro"),
    _language("AutoHotkey", ".ahk .ahkl", aliases="ahk"),
    _language("Awk", ".awk .auk .gawk .mawk .nawk"),
    _language("Batchfile", ".bat .cmd", aliases="bat batch dosbatch winbatch"),
    _language("Bicep", ".bicep .bicepparam"),
    _language("C", ".c .cats .h .idc"),
    _language("C#", ".cs .cake .cs.pp .csx .linq", aliases="csharp cake cakescript"),
    _language(
        "C++",
        ".cpp .c++ .cc .cp .cppm .cxx .h .h++ .hh .hpp .hxx .inc .inl .ino .ipp .ixx .re .tcc .tpp",
        aliases="cpp",
    ),
    _language("CMake", ".cmake .cmake.in", "CMakeLists.txt"),
    _language("COBOL", ".cob .cbl .ccp .cobol .cpy"),
    _language("CSS", ".css"),
    _language("CSV", ".csv"),
    _language("Clojure", ".clj .bb .boot .cl2 .cljc .cljs .cljs.hl .cljscm .cljx .hic", "riemann.config"),
    _language("CoffeeScript", ".coffee ._coffee .cake .cjsx .iced", "Cakefile", "coffee coffee-script"),
    _language("Common Lisp", ".lisp .asd .cl .l .lsp .ny .podsl .sexp", aliases="lisp"),
    _language("Crystal", ".cr"),
    _language("Cuda", ".cu .cuh"),
    _language("D", ".d .di", aliases="dlang"),
    _language("Dart", ".dart"),
    _language("Dockerfile", ".dockerfile .containerfile", "Dockerfile Containerfile", "containerfile"),
    _language("Elixir", ".ex .exs", "mix.lock"),
    _language("Elm", ".elm"),
    _language("Emacs Lisp", ".el .emacs .emacs.desktop", ".emacs .spacemacs Cask", "elisp emacs"),
    _language("Erlang", ".erl .app.src .es .escript .hrl .xrl .yrl", "Emakefile rebar.config rebar.lock"),
    _language("F#", ".fs .fsi .fsx", aliases="fsharp"),
    _language("Fish", ".fish"),
    _language("Fortran", ".f .f77 .for .fpp .f90 .f95 .f03 .f08"),
    _language("Go", ".go", aliases="golang"),
    _language("Go Checksums", "", "go.sum go.work.sum", "go.sum"),
    _language("Go Module", "", "go.mod", "go.mod"),
    _language("GraphQL", ".graphql .gql .graphqls"),
    _language("Groovy", ".groovy .grt .gtpl .gvy", "Jenkinsfile"),
    _language("HCL", ".hcl .nomad .tf .tfvars .workflow", aliases="terraform"),
    _language("HTML", ".html .hta .htm .html.hl .inc .xht .xhtml", aliases="xhtml"),
    _language("HTML+ERB", ".erb .erb.deface .rhtml", aliases="erb"),
    _language("Handlebars", ".handlebars .hbs", aliases="hbs htmlbars"),
    _language("Haskell", ".hs .hs-boot .hsc"),
    _language("INI", ".ini .cfg .cnf .dof .lektorproject .prefs .pro .properties .url", ".editorconfig .gitconfig"),
    _language(
        "Ignore List", ".gitignore", ".dockerignore .eslintignore .npmignore .prettierignore", "gitignore ignore"
    ),
    _language(
        "JSON",
        ".json .4dform .avsc .geojson .gltf .har .ice .json-tmlanguage .jsonl .mcmeta .topojson "
        ".webapp .webmanifest .yy .yyp",
        ".arcconfig .watchmanconfig Pipfile.lock composer.lock flake.lock mcmod.info deno.lock .tern-config",
    ),
    _language(
        "JSON with Comments",
        ".jsonc .code-workspace .sublime-settings",
        "tsconfig.json jsconfig.json tslint.json .babelrc .eslintrc.json .jshintrc .jslintrc devcontainer.json",
        "jsonc",
    ),
    _language("JSX", ".jsx"),
    _language("Java", ".java .jav .jsh"),
    _language("Java Properties", ".properties"),
    _language(
        "JavaScript",
        "._js .bones .cjs .es .es6 .frag .gs .jake .javascript .js .jsb .jscad .jsfl .jslib .jsm "
        ".jspre .jss .jsx .mjs .njs .pac .sjs .ssjs .xsjs .xsjslib",
        "Jakefile",
        "js node",
    ),
    _language("Jsonnet", ".jsonnet .libsonnet"),
    _language("Julia", ".jl"),
    _language("Jupyter Notebook", ".ipynb", "Notebook"),
    _language("Just", ".just", "justfile Justfile .justfile JUSTFILE", "justfile"),
    _language("Kotlin", ".kt .ktm .kts"),
    _language("Less", ".less"),
    _language("Lua", ".lua .fcgi .nse .p8 .pd_lua .rbxs .rockspec .wlua", ".luacheckrc"),
    _language(
        "Makefile",
        ".mak .d .make .makefile .mk .mkfile",
        "BSDmakefile GNUmakefile Kbuild Makefile Makefile.am Makefile.in makefile mkfile",
        "make mf bsdmake",
    ),
    _language(
        "Markdown",
        ".md .livemd .markdown .mdown .mdwn .mdx .mkd .mkdn .mkdown .ronn .scd .workbook",
        "contents.lr",
        "md pandoc",
    ),
    _language("Mustache", ".mustache"),
    _language("Nim", ".nim .nim.cfg .nimble .nimrod .nims", "nim.cfg"),
    _language("Nix", ".nix", aliases="nixos"),
    _language("OCaml", ".ml .eliom .eliomi .ml4 .mli .mll .mly"),
    _language("Objective-C", ".m .h", aliases="obj-c objc objectivec"),
    _language("Objective-C++", ".mm", aliases="obj-c++ objc++ objectivec++"),
    _language(
        "PHP", ".php .aw .ctp .fcgi .inc .php3 .php4 .php5 .phps .phpt", ".php .php_cs .php_cs.dist Phakefile", "inc"
    ),
    _language("PLpgSQL", ".pgsql .sql"),
    _language("Pascal", ".pas .dfm .dpr .inc .lpr .pascal .pp", aliases="delphi objectpascal"),
    _language(
        "Perl", ".pl .al .cgi .fcgi .perl .ph .plx .pm .psgi .t", ".latexmkrc Makefile.PL Rexfile ack cpanfile", "cperl"
    ),
    _language("PowerShell", ".ps1 .psd1 .psm1", aliases="posh pwsh"),
    _language("Prolog", ".pl .plt .pro .prolog .yap"),
    _language("Protocol Buffer", ".proto", aliases="proto protobuf"),
    _language("Pug", ".jade .pug"),
    _language("Puppet", ".pp", "Modulefile"),
    _language(
        "Python",
        ".py .cgi .fcgi .gyp .gypi .lmi .py3 .pyde .pyi .pyp .pyt .pyw .rpy .spec .tac .wsgi .xpy",
        ".gclient DEPS SConscript SConstruct wscript",
        "python3 rusthon",
    ),
    _language("R", ".r .rd .rsx", ".Rprofile expr-dist", "rscript splus"),
    _language("Racket", ".rkt .rktd .rktl .scrbl"),
    _language(
        "Ruby",
        ".rb .builder .eye .fcgi .gemspec .god .jbuilder .mspec .pluginspec .podspec .prawn .rabl .rake "
        ".rbi .rbuild .rbw .rbx .ru .ruby .spec .thor .watchr",
        ".irbrc .pryrc .simplecov Appraisals Berksfile "
        "Brewfile Buildfile Capfile Dangerfile Deliverfile Fastfile Gemfile Guardfile Jarfile Mavenfile Podfile "
        "Puppetfile Rakefile Snapfile Steepfile Thorfile Vagrantfile buildfile",
        "jruby macruby rake rb rbx",
    ),
    _language("Rust", ".rs .rs.in", aliases="rs"),
    _language("SCSS", ".scss"),
    _language("SQL", ".sql .cql .ddl .inc .mysql .prc .tab .udf .viw"),
    _language("SVG", ".svg"),
    _language("Sass", ".sass"),
    _language("Scala", ".scala .kojo .sbt .sc"),
    _language("Scheme", ".scm .sch .sld .sls .sps .ss"),
    _language(
        "Shell",
        ".sh .bash .bats .cgi .command .fcgi .ksh .sh.in .tmux .tool .zsh .zsh-theme",
        ".bash_aliases "
        ".bash_functions .bash_history .bash_logout .bash_profile .bashrc .cshrc .envrc .flaskenv .kshrc .login "
        ".profile .zlogin .zlogout .zprofile .zshenv .zshrc PKGBUILD bash_aliases bash_logout bash_profile bashrc "
        "gradlew profile zlogin zlogout zprofile zshenv zshrc",
        "sh shell-script bash zsh envrc",
    ),
    _language("Solidity", ".sol"),
    _language(
        "Starlark", ".bzl .star", "BUCK BUILD BUILD.bazel MODULE.bazel Tiltfile WORKSPACE WORKSPACE.bazel", "bazel bzl"
    ),
    _language("Stylus", ".styl"),
    _language("Svelte", ".svelte"),
    _language("Swift", ".swift"),
    _language("SystemVerilog", ".sv .svh .vh"),
    _language("TOML", ".toml", "Cargo.lock Gopkg.lock Pipfile poetry.lock pdm.lock uv.lock"),
    _language("TSX", ".tsx"),
    _language("Tcl", ".tcl .adp .sdc .tcl.in .tm .xdc", "owh starfield"),
    _language("TeX", ".tex .aux .bbx .cbx .cls .dtx .ins .lbx .ltx .mkii .mkiv .mkvi .sty .toc", aliases="latex"),
    _language(
        "Text",
        ".txt .fr .nb .ncl .no",
        "CITATION COPYING COPYRIGHT.regex FONTLOG INSTALL LICENSE NEWS README.1ST",
        "plaintext fundamental",
    ),
    _language("Thrift", ".thrift"),
    _language("TypeScript", ".ts .cts .mts .tsx", aliases="ts"),
    _language("V", ".v", aliases="vlang"),
    _language("VBA", ".bas .cls .frm .vba", aliases="visual-basic-for-applications"),
    _language("VHDL", ".vhdl .vhd .vhf .vhi .vho .vhs .vht .vhw"),
    _language("Verilog", ".v .veo"),
    _language(
        "Vim Script",
        ".vim .vba .vimrc .vmb",
        ".exrc .gvimrc .nvimrc .vimrc _vimrc gvimrc nvimrc vimrc",
        "vim viml vimscript nvim",
    ),
    _language("Visual Basic .NET", ".vb .vbhtml", aliases="vb.net vbnet"),
    _language("Vue", ".vue"),
    _language("WebAssembly", ".wast .wat", aliases="wasm wast"),
    _language(
        "XML",
        ".xml .adml .admx .ant .axaml .axml .builds .ccproj .csproj .fsproj .fxml .gml .grxml .jelly .kml "
        ".launch .mxml .natvis .nuspec .plist .props .proj .resx .rss .sfproj .shproj .storyboard .targets "
        ".tmlanguage .vbproj .vcxproj .vsixmanifest .vssettings .wixproj .wsdl .wsf .wxi .wxl .wxs .xacro .xaml "
        ".xib .xlf .xliff .xmi .xml.dist .xproj .xsd .xspec .xul .zcml",
        ".classpath .cproject .project App.config NuGet.config Web.config packages.config",
        "rss xsd wsdl",
    ),
    _language("XSLT", ".xslt .xsl", aliases="xsl"),
    _language(
        "YAML",
        ".yml .mir .reek .rviz .sublime-syntax .syntax .yaml .yaml-tmlanguage",
        ".clang-format .clang-tidy .gemrc CITATION.cff glide.lock yarn.lock pixi.lock",
        "yml",
    ),
    _language("Zig", ".zig .zig.zon"),
)

_BY_NAME = {name.lower(): language for language in LANGUAGES for name in (*language.aliases, language.name)}
