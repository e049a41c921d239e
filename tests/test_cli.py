"""The installed command, in a process of its own: what it prints where, what it leaves, how it ends."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

import pytest

from flows.server import LocalServer
from tests.gitrepos import run_git
from tests.harness import NOTHING, SPECS, Done, Installation
from tests.s3server import Key, S3Server

BUSYBOX = "batchwright/busybox:1"
SHOP, BILLING = "github.com/acme/shop", "github.com/acme/billing"
FAULTY = """\
name: faulty
on:
  - repository: github.com/acme/shop
steps:
  - run: echo
    container: alpine:3
    colour: red
  - run: echo
changesetTemplate:
  title: T
  branch: b
  commit: {message: M}
"""


def spec_of(script: str = "echo x > new", *, image: str = BUSYBOX, on: str = f"repository: {SHOP}") -> str:
    """A batch spec of one step."""
    return (
        f"name: change\non: [{{{on}}}]\nsteps: [{{run: '{script}', container: '{image}'}}]\n"
        "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}\n"
    )


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A file for a batch spec."""
    return tmp_path / "spec.yaml"


class TestValidate:
    def test_a_valid_spec(self, installation: Installation) -> None:
        text = installation.command("validate", SPECS / "demo.yaml")
        machine = installation.command("validate", SPECS / "demo.yaml", "--json")

        assert (text.code, text.stdout, text.stderr) == (0, f"{SPECS / 'demo.yaml'}: valid\n".encode(), "")
        assert (machine.code, machine.json, machine.stderr) == (0, {"valid": True, "errors": []}, "")

    def test_every_fault_is_told_with_its_path_and_line(self, installation: Installation, spec: Path) -> None:
        spec.write_text(FAULTY)

        done = installation.command("validate", spec)

        assert (done.code, done.stdout) == (2, b"")
        *faults, count = done.stderr.splitlines()
        assert [fault.split(": ")[:2] for fault in faults] == [
            [f"{spec}:7", "steps.0"],
            [f"{spec}:8", "steps.1"],
        ]
        assert "colour" in faults[0]
        assert "container" in faults[1]
        assert count == "2 faults"

    def test_programs_get_the_faults_as_json(self, installation: Installation, spec: Path) -> None:
        spec.write_text(FAULTY)

        done = installation.command("validate", spec, "--json")

        assert (done.code, done.stderr) == (2, "")
        assert done.json["valid"] is False
        assert [(error["path"], error["line"]) for error in done.json["errors"]] == [("steps.0", 7), ("steps.1", 8)]
        assert all(set(error) == {"path", "message", "line"} for error in done.json["errors"])

    @pytest.mark.parametrize(("text", "code"), [(spec_of(), 0), (FAULTY, 2), ("name: [\n", 2), ("", 2)])
    def test_standard_input_can_be_checked(self, installation: Installation, text: str, code: int) -> None:
        done = installation.command("validate", "-", "--json", stdin=text.encode())

        assert done.code == code
        assert done.json["valid"] is (code == 0)
        assert bool(done.json["errors"]) is (code == 2)

    def test_mounts_are_looked_up_beside_the_spec(self, installation: Installation, spec: Path) -> None:
        spec.write_text(spec_of().replace("run:", "mount: [{path: ./tool, mountpoint: /tmp/tool}], run:"))

        missing = installation.command("validate", spec, "--json")
        (spec.parent / "tool").touch()
        there = installation.command("validate", spec, "--json")

        assert [error["path"] for error in missing.json["errors"]] == ["steps.0.mount.0.path"]
        assert (missing.code, there.code) == (2, 0)

    def test_files_that_cannot_be_read_are_told(self, installation: Installation, tmp_path: Path) -> None:
        (tmp_path / "latin.yaml").write_bytes("name: Grün\n".encode("latin-1"))

        errors = [
            installation.command("validate", tmp_path / name).error for name in ("missing.yaml", "latin.yaml", ".")
        ]

        assert "missing.yaml: No such file or directory" in errors[0]
        assert "latin.yaml: not UTF-8 text (byte 8)" in errors[1]
        assert "Is a directory" in errors[2]

    def test_what_takes_seconds_to_import_is_left_alone(self, installation: Installation) -> None:
        done = installation.command("validate", SPECS / "demo.yaml", environment={"PYTHONPROFILEIMPORTTIME": "1"})

        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "flows.cli" in imported
        assert not imported & {"prefect", "docker", "boto3", "sqlalchemy"}


class TestResolve:
    def test_the_workspaces_are_listed(self, installation: Installation) -> None:
        done = installation.command("resolve", SPECS / "demo.yaml", "--repositories", installation.repositories)

        assert done.code == 0
        header, *rows, total = done.stdout.decode().splitlines()
        assert header.split() == ["repository", "branch", "commit", "path", "matches", "skipped", "steps"]
        assert [row.split()[:2] for row in rows if row.split()[0].startswith("github.com")] == [
            ["github.com/acme/billing", "master"],
            ["github.com/acme/handbook", "main"],
            ["github.com/acme/infrastructure", "trunk"],
            ["github.com/acme/platform", "main"],
            ["github.com/acme/shop", "main"],
        ]
        assert "ignored: github.com/acme/archive: there is a .batchignore in its root" in rows
        assert total == "5 workspaces"

    def test_programs_get_them_as_json(self, installation: Installation) -> None:
        done = installation.command(
            "resolve", SPECS / "monorepo.yaml", "--repositories", installation.repositories, "--json"
        )

        assert (done.code, done.stderr) == (0, "")
        found = [(each["repository"], each["path"]) for each in done.json["workspaces"]]
        assert found == [
            ("github.com/acme/design-tokens", ""),
            ("github.com/acme/platform", "libraries/ui"),
            ("github.com/acme/platform", "services/api"),
            ("github.com/acme/platform", "services/web"),
        ]
        commit = run_git(installation.repositories / "github.com/acme/platform", "rev-parse", "HEAD")
        assert {each["commit"] for each in done.json["workspaces"][1:]} == {commit}
        assert (done.json["ignored"], done.json["skipped"]) == ([], [])

    def test_some_repositories_can_be_chosen_and_ignored_ones_allowed(self, installation: Installation) -> None:
        done = installation.command(
            *("resolve", SPECS / "demo.yaml", "--repositories", installation.repositories),
            *("--only", "*/{archive,shop}", "--allow-ignored", "--json"),
        )

        assert [each["repository"] for each in done.json["workspaces"]] == ["github.com/acme/archive", SHOP]

    def test_a_list_of_addresses_will_do(self, installation: Installation, tmp_path: Path) -> None:
        listed = tmp_path / "repositories.yaml"
        listed.write_text(f"- name: {SHOP}\n  url: file://{installation.repositories / SHOP}\n")

        done = installation.command("resolve", SPECS / "demo.yaml", "--repositories", listed, "--json")

        assert [each["repository"] for each in done.json["workspaces"]] == [SHOP]

    @pytest.mark.parametrize(
        ("on", "arguments", "message"),
        [
            (f"repository: {SHOP}, branch: nope", (), "nope"),
            ("repositoriesMatchingQuery: 'type:diff x'", (), "type:diff"),
            (f"repository: {SHOP}", ("--only", "["), "'[' is no glob for names of repositories"),
            (f"repository: {SHOP}", ("--repositories", __file__), "the list of repositories is not valid YAML"),
        ],
        ids=["branch", "query", "glob", "list"],
    )
    def test_what_cannot_be_resolved_is_told(
        self, installation: Installation, spec: Path, on: str, arguments: tuple[object, ...], message: str
    ) -> None:
        spec.write_text(spec_of(on=on))

        done = installation.command("resolve", spec, "--repositories", installation.repositories, *arguments)

        assert (done.code, done.stdout) == (2, b"")
        assert message in done.error


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo's results are written to."""
    return tmp_path_factory.mktemp("out") / "deep" / "results"


@pytest.fixture(scope="module")
def demo(installation: Installation, prefect_server: LocalServer, results: Path) -> Done:
    """The demo, run once."""
    done = installation.run_demo("demo.yaml", "--json", "--out", results)
    assert done.code == 0, done.stderr
    return done


@pytest.mark.docker
@pytest.mark.flow
class TestRun:
    def test_programs_get_the_manifest_and_nothing_else(self, demo: Done, results: Path) -> None:
        assert demo.json["state"] == "completed"
        assert [result["title"].rpartition("/")[2] for result in demo.json["workspaces"]] == [
            "billing",
            "handbook",
            "infrastructure",
            "platform",
            "shop",
        ]
        assert json.loads((results / "report.json").read_text()) == demo.json
        assert "5 workspaces found" in demo.stderr

    def test_the_results_are_files(self, demo: Done, results: Path) -> None:
        names = sorted(path.name for path in (results / "changesets").iterdir())
        assert names == sorted(f"{number}.{kind}" for number in range(1, 6) for kind in ("json", "patch"))
        assert sorted(path.name for path in results.iterdir()) == ["changesets", "report.json"]
        spec = json.loads((results / "changesets/5.json").read_text())
        assert (spec["baseRepository"], spec["headRef"]) == (SHOP, "refs/heads/new-mirror")
        assert spec["title"] == "Fetch packages from packages.acme.example"
        assert b64decode(spec["commits"][0]["diff"]) == (results / "changesets/5.patch").read_bytes()

    def test_patches_apply_and_give_what_the_steps_left(
        self, demo: Done, results: Path, installation: Installation, tmp_path: Path
    ) -> None:
        clone = tmp_path / "clone"
        run_git(tmp_path, "clone", "--quiet", str(installation.repositories / SHOP), str(clone))
        before = {path: (clone / path).read_text() for path in ("Dockerfile", "pip.conf", "README.md")}

        run_git(clone, "apply", "-p0", str(results / "changesets/5.patch"))

        after = {path: text.replace("mirror.acme", "packages.acme") for path, text in before.items()}
        after["README.md"] += "Images are built from packages.acme.example.\n"
        assert {path: (clone / path).read_text() for path in before} == after
        assert run_git(clone, "status", "--porcelain").split() == ["M", "Dockerfile", "M", "README.md", "M", "pip.conf"]

    def test_a_second_run_says_that_nothing_is_new(
        self, demo: Done, installation: Installation, tmp_path: Path
    ) -> None:
        done = installation.run_demo("demo.yaml", "--out", tmp_path)

        text = done.stdout.decode()
        assert done.code == 0
        assert text.startswith("workspace ")
        assert f"{SHOP}" in text
        assert "5 of 5 workspaces completed; steps: 0 run, 7 cached, 3 skipped; 5 changeset specs" in text
        assert f"results    folder {installation.store}, run new-mirror-" in text
        assert "batchwright show new-mirror-" in text
        assert len(list((tmp_path / "changesets").iterdir())) == 10

    def test_a_failing_workspace_is_told_and_the_others_are_kept(
        self, installation: Installation, prefect_server: LocalServer, spec: Path, tmp_path: Path
    ) -> None:
        script = 'if [ -f go.mod ]; then printf looking; printf "no go" >&2; exit 3; fi; echo x > new'
        spec.write_text(spec_of(script, on="repositoriesMatchingQuery: 'repo:(shop|billing)$'"))

        done = installation.command(
            "run", spec, "--repositories", installation.repositories, "--out", tmp_path / "out", "--timeout", 600
        )

        logs = installation.command("logs", "last", "billing", 1)
        text = done.stdout.decode()
        assert done.code == 1
        assert "1 of 2 workspaces completed; 1 failed" in text
        assert "no go\n" in text
        assert "Command failed with exit code 3." in text
        assert sorted(path.name for path in (tmp_path / "out/changesets").iterdir()) == ["1.json", "1.patch"]
        assert (logs.code, logs.stdout, logs.stderr) == (0, b"looking", "no go")

    def test_a_missing_image_fails_each_workspace_and_is_told_once(
        self, installation: Installation, prefect_server: LocalServer, spec: Path
    ) -> None:
        image = "No:Image:1"
        spec.write_text(spec_of(image=image, on="repositoriesMatchingQuery: 'repo:(shop|billing)$'"))

        done = installation.command("run", spec, "--repositories", installation.repositories)

        text = done.stdout.decode()
        assert done.code == 1
        assert "Traceback" not in done.stderr
        assert f"{BILLING}, {SHOP}\n" in text
        assert text.count("well-formed image reference") == 1


@pytest.mark.docker
@pytest.mark.flow
class TestLookingBack:
    def test_a_run_is_shown(self, demo: Done, installation: Installation) -> None:
        done = installation.command("show", demo.json["run_id"])

        text = done.stdout.decode()
        assert done.code == 0
        assert text.startswith(demo.json["run_id"])
        assert text.splitlines()[0].endswith("completed")
        assert SHOP in text

    def test_programs_get_it_as_json(self, demo: Done, installation: Installation) -> None:
        run_id = demo.json["run_id"]

        manifest = installation.command("show", run_id, "--json")
        steps = installation.command("show", run_id, "shop", "--json")

        assert manifest.json == demo.json
        assert [step["state"] for step in steps.json["steps"]] == ["completed", "completed"]

    def test_a_report_is_written(self, demo: Done, installation: Installation, tmp_path: Path) -> None:
        page, nowhere = tmp_path / "report.html", tmp_path / "no" / "report.html"

        done = installation.command("show", demo.json["run_id"], "--html", page)
        refused = installation.command("show", demo.json["run_id"], "--html", nowhere)

        assert (done.code, done.stdout.decode()) == (0, f"{page}\n"), done.stderr
        assert page.read_text().count('class="workspace"') == 5
        assert (refused.code, refused.error.strip()) == (
            2,
            f"--html {nowhere}: No such file or directory; name a file that can be written",
        )

    def test_the_steps_of_a_workspace_are_shown(self, demo: Done, installation: Installation) -> None:
        text = installation.command("show", demo.json["run_id"], "acme/billing").stdout.decode()

        assert "step 1: executed" in text
        assert "sed -i s/mirror.acme.example/packages.acme.example/g ci/settings.env" in text
        assert "step 2: skipped" in text
        assert "→ false" in text

    def test_diffs_come_byte_for_byte(self, demo: Done, installation: Installation, results: Path) -> None:
        patches = [(results / f"changesets/{number}.patch").read_bytes() for number in range(1, 6)]

        everything = installation.command("diff", demo.json["run_id"])
        one = installation.command("diff", demo.json["run_id"], "shop")

        assert everything.stdout == b"".join(patches)
        assert one.stdout == patches[4]
        assert (everything.stderr, one.stderr) == ("", "")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("show", "nope"), "there is no run 'nope'"),
            (("diff", "../x"), "there is no run"),
            (("diff", "RUN", "nope"), "no workspace 'nope'; it has github.com/acme/billing"),
            (("logs", "RUN", "shop", "9"), "no record of step 9; it has 2 steps"),
            (("logs", "RUN", "billing", "2"), "step 2 was skipped (if: "),
        ],
    )
    def test_what_is_not_there_is_told(
        self, demo: Done, installation: Installation, arguments: tuple[str, ...], message: str
    ) -> None:
        done = installation.command(*(demo.json["run_id"] if each == "RUN" else each for each in arguments))

        assert (done.code, done.stdout) == (2, b"")
        assert message in done.error

    def test_a_store_without_runs_is_told(self, installation: Installation, tmp_path: Path) -> None:
        done = installation.command("show", "--store", tmp_path / "none")

        assert done.code == 2
        assert "no run in this store yet" in done.error
        assert not (tmp_path / "none").exists()


@pytest.mark.docker
class TestDoctor:
    def test_a_machine_that_is_ready(self, installation: Installation) -> None:
        done = installation.command("doctor", "--json")

        findings = {finding["subject"]: finding for finding in done.json}
        assert done.code == 0
        assert list(findings) == ["git", "engine", "workspaces", "store", "Prefect server"]
        assert findings["workspaces"]["text"].startswith(("overlay: ", "copy: "))
        assert findings["store"]["text"] == f"folder {installation.store} can be written and read"

    def test_everything_that_is_wrong_is_told(self, installation: Installation, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        done = installation.command(
            "doctor",
            "--store",
            tmp_path / "file",
            environment={"DOCKER_HOST": "unix:///nonexistent", "PATH": "/nowhere"},
        )

        marks = [line.split()[:2] for line in done.stdout.decode().splitlines()]
        assert done.code == 1
        assert "Traceback" not in done.stderr
        assert marks == [["✗", "git"], ["✗", "engine"], ["✗", "workspaces"], ["✗", "store"], ["·", "Prefect"]]


class TestBadInput:
    """One clear message, the right exit code, and nothing half-written."""

    def refused(
        self,
        installation: Installation,
        text: str,
        spec: Path,
        *arguments: object,
        environment: Mapping[str, str] = NOTHING,
    ) -> tuple[int, str]:
        """The exit code and the one error of a run that must not begin."""
        spec.write_text(text)
        before = installation.runs()
        out = spec.parent / "out"
        given = ("--repositories", installation.repositories, "--out", out, *arguments)

        done = installation.command("run", spec, *given, environment=environment)

        assert done.stdout == b""
        assert installation.runs() == before
        assert not out.exists()
        return done.code, done.error

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("name: [\n", "line 2"),
            (FAULTY, "2 faults:"),
            (spec_of("echo ${{ nope }}"), "steps.0.run: "),
            (spec_of().replace("run:", "mount: [{path: ../x, mountpoint: /x}], run:"), "not in the same directory"),
        ],
        ids=["YAML", "keys", "template", "mount"],
    )
    def test_of_the_spec(self, installation: Installation, spec: Path, text: str, message: str) -> None:
        code, error = self.refused(installation, text, spec)

        assert code == 2
        assert message in error

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--repositories", "nowhere"), "--repositories nowhere: no such folder or file"),
            (("--out", "/dev/null/out"), "--out /dev/null/out: /dev/null is no folder that can be written"),
        ],
    )
    def test_of_options_is_told_before_a_server_is_started(
        self, tmp_path: Path, spec: Path, arguments: tuple[str, ...], message: str
    ) -> None:
        spec.write_text(spec_of())
        installation = Installation(tmp_path)

        done = installation.command("run", spec, *arguments)

        assert done.code == 2
        assert message in done.error
        assert not installation.home.exists()

    def test_a_configured_prefect_server_that_is_gone_is_told(self, installation: Installation, spec: Path) -> None:
        code, error = self.refused(
            installation, spec_of(), spec, environment={"PREFECT_API_URL": "http://127.0.0.1:9/api"}
        )

        assert code == 1
        assert "http://127.0.0.1:9/api does not answer" in error

    @pytest.mark.flow
    @pytest.mark.parametrize(
        ("on", "arguments", "message"),
        [
            ("repository: github.com/acme/shoop", (), '"github.com/acme/shoop" not found, did you mean'),
            ("repositoriesMatchingQuery: 'repo:nobody'", (), "the batch spec matches nothing"),
            (f"repository: {SHOP}", ("--store", "/dev/null/store"), "folder /dev/null/store"),
            (f"repository: {SHOP}", ("--store", "s3://bucket/../x"), "--store s3://bucket/../x: prefix: "),
        ],
        ids=["repository", "nothing", "store", "prefix"],
    )
    def test_of_what_the_run_meets(
        self,
        installation: Installation,
        prefect_server: LocalServer,
        spec: Path,
        on: str,
        arguments: tuple[str, ...],
        message: str,
    ) -> None:
        code, error = self.refused(installation, spec_of(on=on), spec, *arguments)

        assert code == 2
        assert message in error

    @pytest.mark.flow
    def test_an_engine_that_does_not_answer(
        self, installation: Installation, prefect_server: LocalServer, spec: Path
    ) -> None:
        code, error = self.refused(installation, spec_of(), spec, environment={"DOCKER_HOST": "unix:///nonexistent"})

        assert code == 1
        assert "the container engine at unix:///nonexistent does not answer" in error

    @pytest.mark.flow
    def test_a_store_without_room(self, installation: Installation, prefect_server: LocalServer, spec: Path) -> None:
        spec.write_text(spec_of())
        given = ("--repositories", installation.repositories, "--store", spec.parent / "store")

        done = installation.command("run", spec, *given, wrapped_by=("prlimit", "--fsize=0"))

        assert (done.code, done.stdout) == (1, b"")
        assert "no room left" in done.error
        assert not (spec.parent / "store/runs").exists()

    @pytest.mark.parametrize("command", ["run", "resolve"])
    def test_a_state_folder_that_cannot_be_written(self, installation: Installation, spec: Path, command: str) -> None:
        spec.write_text(spec_of())
        given = ("--repositories", installation.repositories)

        done = installation.command(command, spec, *given, environment={"BATCHWRIGHT_HOME": "/dev/null/home"})

        assert (done.code, done.stdout) == (1, b"")
        assert "Not a directory: '/dev/null/home/" in done.error

    @pytest.mark.s3
    @pytest.mark.flow
    @pytest.mark.parametrize(
        ("bucket", "good_key", "message"),
        [("artifacts", False, "InvalidAccessKeyId"), ("no-such-bucket", True, "there is no such bucket")],
    )
    def test_a_bucket_that_lets_nobody_in(
        self,
        installation: Installation,
        prefect_server: LocalServer,
        s3_server: S3Server,
        spec: Path,
        bucket: str,
        good_key: bool,
        message: str,
    ) -> None:
        key = s3_server.owner if good_key else Key.new()

        code, error = self.refused(
            installation,
            spec_of(),
            spec,
            "--store",
            f"s3://{bucket}/prefix",
            environment={
                "AWS_ENDPOINT_URL": s3_server.endpoint_url,
                "AWS_ACCESS_KEY_ID": key.access_key_id,
                "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            },
        )

        assert code == 2
        assert f"s3://{bucket}/prefix" in error
        assert message in error
