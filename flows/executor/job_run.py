"""One job from its first log entry to the word how it ended. Knows no Prefect and no queue loop.

``prepare``, ``run_step`` for each step, ``report``, in this order; each may be repeated after a temporary error.
Whatever happens, ``report`` comes last: it leaves no container, and tells the instance once however often it is called.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from uuid import uuid4

from pydantic import SecretStr

from blocks.blobs import Blobs
from blocks.queue_client import JobClient, JobGone, QueueTrouble
from blocks.runtime import Runtime, RuntimeTrouble
from blocks.sources import Credentials, RepositoryLocation
from blocks.store import ArtifactStore, StoreTrouble

from ..batches.errors import BatchError
from ..batches.execution_input import ExecutionInput, read_execution_input
from ..batches.jobs import INPUT, WORKSPACE_FILES, Job, JobRefused
from ..batches.masking import Masker
from ..batches.results import Failure, StepResult
from ..batches.steps import Outside
from ..execution import Limits
from ..failures import failure_of_error, go_duration, is_temporary
from ..leftovers import remove_unused
from ..mirror import Mirror
from ..scratch import scratch_folder
from ..step_cache import StepCache
from .benches import JOBS, Place, open_bench
from .cli_mode import CliStory, read_command
from .images import make_ready, static_images
from .input_run import Conditions, InputRun
from .job_files import content_of, write_files
from .job_log import JobLog, LogEntry, show_error
from .native_mode import NativeStory
from .stopping import Reason, Stopping

log = logging.getLogger(__name__)

FORESEEN = (BatchError, RuntimeTrouble, StoreTrouble, QueueTrouble, OSError)
"""What may go wrong with a job without being a bug of ours."""

_SECRET_NAME = re.compile(r"\$\{\{ secrets\.([^}\s]+) \}\}")


class Outcome(Enum):
    """How a job ended, for who shows it."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    NOT_OURS = "not ours any more"


@dataclass(frozen=True)
class Workshop:
    """What all jobs of an executor share. ``runtime_for``: the engine with a job's registry credentials and user."""

    home: Path
    store: ArtifactStore
    runtime_for: Callable[[Job, bool], Runtime]
    """Takes the job, and whether its steps run as root if nothing else is configured."""
    secrets: tuple[str, ...] = ()
    """The executor's own, masked in whatever is told."""
    job_seconds: float = 1800.0
    sync_seconds: float = 1.0


class JobRun:
    """One job. For one thread, but for ``stopping``. ``stopping.cancel`` set: what runs ends within seconds."""

    def __init__(self, job: Job, client: JobClient, workshop: Workshop, stopping: Stopping) -> None:
        self.job, self.stopping = job, stopping
        self.outcome: Outcome | None = None
        self.message = ""
        """Why it did not complete, for people."""
        self._client, self._workshop = client, workshop
        self._masker = _masker(job, workshop.secrets)
        self._log = JobLog(
            client, self._masker, lambda: stopping.order(Reason.LOST), sync_seconds=workshop.sync_seconds
        )
        self._stack = ExitStack()
        self._failure: Failure | None = None
        self._is_temporary = False
        self._input: InputRun | None = None
        self._story: NativeStory | CliStory | None = None
        self._is_prepared = self._is_torn_down = False

    @property
    def steps(self) -> list[tuple[int, str]]:
        """The steps left to run, once it is prepared: index and image."""
        if self._input is None or self._failure is not None:
            return []
        given = self._input.given
        return [(index, step.container) for index, step in enumerate(given.spec.steps) if index >= given.first_step]

    @property
    def failure(self) -> Failure | None:
        """What ended the job, as far as that is known."""
        if self._failure is not None or self._input is None:
            return self._failure
        return self._input.failure

    def prepare(self) -> None:
        """Fetch the repository and the files, take up what is known. Raises temporary errors only."""
        if self._is_prepared or self._failure is not None:
            return
        with self._noting_what_is_permanent():
            input_run = self._input or self._open()
            input_run.set_up()
            self._is_prepared = True

    def run_step(self, index: int, show: Callable[[str], None] = log.info) -> StepResult | None:
        """Run step ``index``. None if something else has ended the job. Raises temporary errors only."""
        assert self._input is not None, "prepare() comes first"
        self._input.watched_by(show)
        if self._failure is None:
            with self._noting_what_is_permanent():
                return self._input.run_step(index)
        return None

    def fail(self, error: BaseException) -> None:
        """Note what ended the job, when all tries are used up."""
        if self._failure is not None:
            return
        if self._input is not None:
            self._failure = self._input.fail(error)
        else:
            self._failure = _failure_of(error, self._masker)
        self._is_temporary = is_temporary(error)

    def report(self) -> Outcome:
        """Remove what the job needed, and tell the instance how it ended: once. Raises QueueUnavailable, QueueRefused.

        Then the instance has not heard of it, as far as we know: it will, or it gives the job to somebody else.
        """
        if not self._is_torn_down:
            self._is_torn_down = True
            self._end_the_story()
            self._tear_down()
        if self.outcome is None:
            self.outcome = self._tell()
        return self.outcome

    def close(self) -> None:
        """Leave nothing behind on this machine, whatever was reported."""
        self._stack.close()
        self._log.stop()

    def _open(self) -> InputRun:
        job = self.job
        story: NativeStory | CliStory
        seconds: float | None
        is_native = not job.cli_steps  # a native job may have no step left: skipped ones are not among its steps
        if is_native:
            given = self._read_input(INPUT)
            environment = [entry for step in job.docker_steps for entry in step.env]
            version, files, as_root, seconds = 2, WORKSPACE_FILES, False, None
        else:
            if len(job.cli_steps) != 1:
                raise JobRefused(f"the job has {len(job.cli_steps)} steps of src-cli; want one")
            command = read_command(job.cli_steps[0])
            given = self._read_input(command.input)
            version, environment = 2 if command.binary_diffs else 1, job.cli_steps[0].env
            files, as_root = command.workspace_files or WORKSPACE_FILES, not command.as_image_user
            seconds = command.timeout_seconds
        runtime = self._workshop.runtime_for(job, as_root)
        git_dir = self._fetch(given)
        folder = self._write_files(files)
        story = self._begin_native(given) if is_native else self._begin_cli(given, runtime)
        conditions = Conditions(
            outside=_outside(environment),
            limits=Limits(workspace_seconds=seconds),  # the job's own limit is the loop's
            files=folder,
            result_version=version,
            heeds_skipped_steps=is_native,
        )
        place = Place(self._workshop.home, self._workshop.store, runtime)
        run_id = f"job-{job.id}-{uuid4().hex[:8]}"
        remove_unused(place.home)  # an executor lives for months
        bench = self._stack.enter_context(open_bench(place, run_id, given, git_dir, folder, self.stopping.cancel))
        self._input = InputRun(given, bench, StepCache(Blobs(self._workshop.store)), conditions, story)
        self._stack.callback(self._input.close)
        return self._input

    def _read_input(self, path: str) -> ExecutionInput:
        given = read_execution_input(content_of(self.job, path, self._client))
        if given.workspace.repository != self.job.repository:
            raise JobRefused("the job's input is for another repository than the job")
        commit = self.job.commit or given.workspace.commit
        return replace(given, workspace=given.workspace.model_copy(update={"commit": commit}))

    def _fetch(self, given: ExecutionInput) -> Path:
        """Have the commit, through the instance. The token goes to git by its environment, and is kept nowhere."""
        credentials = Credentials(headers={**self._client.headers, "X-Sourcegraph-Actor-UID": SecretStr("internal")})
        location = RepositoryLocation(
            given.workspace.repository, self._client.repository_url(given.workspace.repository), credentials
        )
        mirror = Mirror(self._workshop.home / "mirrors", location, self.stopping.cancel)
        workspace, commit = given.workspace, given.workspace.commit
        self._note("setup.git.init", "git init", f"in the mirror of {workspace.repository}, which jobs share")
        self._note(
            "setup.git.add-remote", "git remote add origin", "its address is told to the fetch, and kept nowhere"
        )
        self._note("setup.git.disable-gc", "git config gc.auto 0", "said with every command")
        with self._entry("setup.git.fetch", "git", "fetch", "--depth=1", "origin", commit):
            mirror.fetch(commit)
        if workspace.only_fetch_workspace:
            pattern = f"{workspace.path}/*, and the .gitignore and .gitattributes of the folders above"
            self._note("setup.git.sparse-checkout-config", "git config core.sparseCheckout 1", "")
            self._note("setup.git.sparse-checkout-set", "git sparse-checkout set --no-cone", pattern)
        self._note(
            "setup.git.checkout", f"git checkout --force {commit}", f"HEAD is {commit[:7]}, made once for all jobs"
        )
        self._note("setup.git.set-remote", f"git remote set-url origin {workspace.repository}", "steps see no remote")
        return mirror.git_dir

    def _note(self, key: str, command: str, said: str) -> None:
        """An entry that upstream's has: what its command is for is done here in another way, or not needed."""
        with self._entry(key, *command.split()) as entry:
            entry.say(said)

    def _write_files(self, below: str) -> Path:
        parent = self._workshop.home / JOBS
        parent.mkdir(parents=True, exist_ok=True)
        folder = self._stack.enter_context(scratch_folder(parent)) / WORKSPACE_FILES
        folder.mkdir()
        with self._entry("setup.fs.extras") as entry:
            for path in write_files(self.job, below, folder, self._client):
                entry.say(f"wrote {below}/{path}")
        return folder

    def _begin_native(self, given: ExecutionInput) -> NativeStory:
        self._story = NativeStory(self._log, given)
        return self._story

    def _begin_cli(self, given: ExecutionInput, runtime: Runtime) -> CliStory:
        self._story = story = CliStory(self._log, self.job.cli_steps[0]) if self._story is None else self._story
        assert isinstance(story, CliStory)
        story.images(make_ready(given, runtime, self.stopping.cancel), len(static_images(given)))
        story.begins()
        return story

    def _end_the_story(self) -> None:
        """The last events, and the results that go with them."""
        try:
            results = list(self._input.results()) if self._input else []
            nothing_ran = self._input.nothing_ran() if self._input else None
        except (StoreTrouble, BatchError) as error:  # without its results the job has failed
            self.fail(error)
            results, nothing_ran = [], None
        if isinstance(self._story, CliStory):
            if self._input is not None:
                self._story.ended([*results, *([nothing_ran] if nothing_ran else [])], self.failure)
            unsaid = self.failure.message if self.failure and not self._input else ""
            self._story.close(unsaid, failed=self.failure is not None)
        elif self._story is not None and self._input is not None and self.failure is None:
            # Of a native job the results that are new were told step by step. Without one the instance fails the job.
            first = self._input.given.first_step
            sent_with_the_job = [each for each in results if each[1].step_index < first]
            for key, result in [*sent_with_the_job, *([nothing_ran] if nothing_ran else [])]:
                self._story.nothing_ran(key, result)

    def _tear_down(self) -> None:
        with self._entry("teardown.fs"):
            self._stack.close()

    def _tell(self) -> Outcome:
        """Say how it ended, after everything else has arrived."""
        reason = self.stopping.reason
        if reason is not None and not reason.is_still_ours:
            return self._keep_silent(reason)
        try:
            missing = self._send_the_log()
            self.message = missing or self._explanation(reason)
            if not self.message:
                self._client.complete()
                return Outcome.COMPLETED
            if reason is None and self._is_temporary and not missing:
                self._client.errored(self.message)
            else:
                self._client.failed(self.message)
            return Outcome.CANCELED if reason in (Reason.CANCELED, Reason.IN_DASHBOARD) else Outcome.FAILED
        except JobGone as gone:
            self.message = str(gone)
            return Outcome.NOT_OURS
        except QueueTrouble:
            reason = self.stopping.reason
            if reason is None or reason.is_still_ours:
                raise
            return self._keep_silent(reason)  # it is not ours since: our report was heard, or somebody else has the job

    def _keep_silent(self, reason: Reason) -> Outcome:
        self._log.stop()
        self.message = reason.value
        return Outcome.NOT_OURS

    def _send_the_log(self) -> str:
        """Results ride in the log: why the job has failed if the log did not arrive whole, else ""."""
        try:
            self._log.finish()
        except JobGone:
            raise
        except QueueTrouble as trouble:
            return f"the log, which holds the results, could not be sent: {trouble}"
        return ""

    def _explanation(self, reason: Reason | None) -> str:
        if reason is Reason.TIME_IS_OVER:
            return f"{Reason.TIME_IS_OVER.value} of {go_duration(self._workshop.job_seconds)}"
        if reason is not None:
            return str(reason.value)
        if self.failure is None:
            return ""
        command = self._story.failed_command if self._story else ""
        return self._masker.mask_text("\n".join(part for part in (command, self.failure.message) if part))

    @contextmanager
    def _entry(self, key: str, *command: str) -> Iterator[LogEntry]:
        entry = self._log.open(key, command)
        try:
            yield entry
        except BaseException as error:
            show_error(entry, str(error) or type(error).__name__)
            entry.close(1)
            raise
        entry.close(0)

    @contextmanager
    def _noting_what_is_permanent(self) -> Iterator[None]:
        try:
            yield
        except FORESEEN as error:
            if is_temporary(error) and not self.stopping.cancel.is_set():
                raise
            if isinstance(error, JobGone):
                self.stopping.order(Reason.LOST)
            self.fail(error)


def _failure_of(error: BaseException, masker: Masker) -> Failure:
    found = failure_of_error(error)
    return found.model_copy(update={"message": masker.mask_text(found.message)})


def _masker(job: Job, secrets: tuple[str, ...]) -> Masker:
    """Hides what the instance says, and the tokens, which it does not."""
    names: dict[str, str] = {}
    texts: dict[str, str] = {}
    for number, (value, text) in enumerate(job.redacted_values.items()):
        found = _SECRET_NAME.fullmatch(text)
        name = found[1] if found else f"redacted-{number}"
        names[name], texts[name] = value, text
    for number, secret in enumerate((*secrets, job.token.get_secret_value())):
        if secret:
            names[f"own-{number}"], texts[f"own-{number}"] = secret, "SECRET_REMOVED"
    return Masker(names, texts)


def _outside(environment: list[str]) -> Outside:
    """What an executor forwards to steps is secrets: the instance sends nothing else."""
    entries = dict(entry.partition("=")[::2] for entry in environment)
    return Outside.of(secrets=entries, variables={})
