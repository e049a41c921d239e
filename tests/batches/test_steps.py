"""A step and its context become what runs, or the reason why nothing runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.batches.errors import TemplateError
from flows.batches.loading import load_spec
from flows.batches.spec import Step
from flows.batches.steps import ImageNameError, Outside, image_reference, render, skip_reason
from flows.batches.template import StepContext, StepState

OUTSIDE = Outside.of(secrets={"TOKEN": "s3cret"}, variables={"HOME": "/home/ada", "BOTH": "plain"})


def step_of(text: str) -> Step:
    """One step of a batch spec, as YAML."""
    inner = "".join(f"\n    {line}" for line in text.splitlines())
    template = "changesetTemplate: {title: T, body: B, branch: b, commit: {message: M}}"
    return load_spec(f"name: x\nsteps:\n  -{inner}\n{template}\n").steps[0]


def context(**fields: object) -> StepContext:
    return StepContext(repository_name="acme/app", repository_branch="main", **fields)  # type: ignore[arg-type]


class TestConditions:
    def reason(self, condition: str, **fields: object) -> str | None:
        step = step_of(f"run: x\ncontainer: i\nif: {condition}")
        skipped = skip_reason(step, 3, context(**fields))
        assert skipped is None or skipped.index == 3
        return skipped.reason if skipped else None

    @pytest.mark.parametrize(
        "condition", ["true", '"true"', '${{ eq repository.name "acme/app" }}', '" true\\n"', '""', "${{ true }}"]
    )
    def test_that_are_true_let_a_step_run(self, condition: str) -> None:
        assert self.reason(condition) is None

    @pytest.mark.parametrize(
        ("condition", "reason"),
        [
            ("false", "if: false"),
            ('"no"', "if: no"),
            ("${{ eq 1 2 }}", "if: ${{ eq 1 2 }} → false"),
            ("${{ outputs.x }}", "if: ${{ outputs.x }} → a b"),
            ("${{ previous_step.stdout }}", "if: ${{ previous_step.stdout }} → (empty)"),
            ('"${{\\n  eq\\n  1 2 }}"', "if: ${{ eq 1 2 }} → false"),
        ],
    )
    def test_that_are_not_say_why(self, condition: str, reason: str) -> None:
        """As written and as rendered, in one line."""
        assert self.reason(condition, outputs={"x": "a\n b"}) == reason

    def test_that_cannot_be_rendered_are_errors(self) -> None:
        step = step_of('run: x\ncontainer: i\nif: ${{ index (split repository.name "/") 7 }}')

        with pytest.raises(TemplateError) as caught:
            skip_reason(step, 0, context())

        assert caught.value.field == "steps.0.if"

    def test_a_step_without_one_runs(self) -> None:
        assert skip_reason(step_of("run: x\ncontainer: i"), 0, context()) is None


class TestImages:
    def test_are_rendered_and_stripped(self) -> None:
        step = step_of('run: x\ncontainer: "  ${{ outputs.image }}:3\\n"')

        assert image_reference(step, 0, context(outputs={"image": "alpine"})) == "alpine:3"

    @pytest.mark.parametrize("image", ["", " \n"])
    def test_that_render_to_nothing_are_refused(self, image: str) -> None:
        step = step_of("run: x\ncontainer: ${{ outputs.image }}")

        with pytest.raises(ImageNameError, match="failed to resolve image for step 2: empty image"):
            image_reference(step, 1, context(outputs={"image": image}))

    def test_that_hold_a_template_are_refused(self) -> None:
        """A value is never rendered again."""
        step = step_of("run: x\ncontainer: ${{ outputs.image }}")

        with pytest.raises(ImageNameError, match="still holds a template"):
            image_reference(step, 0, context(outputs={"image": "${{ repository.name }}"}))


class TestRendering:
    def test_every_field_that_takes_a_template(self) -> None:
        step = step_of(
            "run: echo ${{ previous_step.stdout }}\n"
            "container: ${{ outputs.image }}\n"
            "env: [{REPOSITORY: '${{ repository.name }}'}, TOKEN, HOME, NONE]\n"
            "files: {/tmp/a: '${{ repository.branch }}'}\n"
            "mount: [{path: ./x, mountpoint: /tmp/x}]"
        )

        rendered = render(
            step, 4, context(outputs={"image": "alpine"}, previous_step=StepState(stdout="hello")), OUTSIDE
        )

        assert (rendered.index, rendered.image, rendered.script) == (4, "alpine", "echo hello")
        assert rendered.environment == {"REPOSITORY": "acme/app", "TOKEN": "s3cret", "HOME": "/home/ada", "NONE": ""}
        assert rendered.secret_names == {"TOKEN"}
        assert rendered.secrets == {"TOKEN": "s3cret"}
        assert rendered.files == {"/tmp/a": "main"}
        assert [mount.mountpoint for mount in rendered.mounts] == ["/tmp/x"]

    def test_the_last_entry_of_a_variable_counts(self) -> None:
        """Also for whether it is a secret."""
        rendered = render(step_of("run: x\ncontainer: i\nenv: [TOKEN, {TOKEN: mine}]"), 0, context(), OUTSIDE)
        again = render(step_of("run: x\ncontainer: i\nenv: [{TOKEN: mine}, TOKEN]"), 0, context(), OUTSIDE)

        assert (rendered.environment, rendered.secrets) == ({"TOKEN": "mine"}, {})
        assert again.secrets == {"TOKEN": "s3cret"}

    @pytest.mark.parametrize(
        ("field", "text"),
        [
            ("steps.0.container", "run: x\ncontainer: ${{ nope }}"),
            ("steps.0.run", "run: ${{ nope }}\ncontainer: i"),
            ("steps.0.files./tmp/a", "run: x\ncontainer: i\nfiles: {/tmp/a: '${{ nope }}'}"),
            ("steps.0.env.A", "run: x\ncontainer: i\nenv: {A: '${{ nope }}'}"),
        ],
    )
    def test_errors_name_the_field(self, field: str, text: str) -> None:
        step = step_of(text.replace("nope", "true")).model_copy()
        broken = Step.model_validate_json(step.model_dump_json().replace("${{ true }}", "${{ nope }}"))

        with pytest.raises(TemplateError) as caught:
            render(broken, 0, context(), OUTSIDE)

        assert caught.value.field == field

    @given(st.text(max_size=30))
    def test_values_from_outside_are_no_templates(self, value: str) -> None:
        value = f"${{{{ repository.name }}}}{value}"

        rendered = render(
            step_of("run: x\ncontainer: i\nenv: [A]"), 0, context(), Outside.of(secrets={}, variables={"A": value})
        )

        assert rendered.environment == {"A": value}

    def test_secrets_stay_out_of_every_repr(self) -> None:
        rendered = render(step_of("run: x\ncontainer: i\nenv: [TOKEN]"), 0, context(), OUTSIDE)

        assert "s3cret" not in f"{OUTSIDE!r} {rendered!r}"


def test_a_name_that_is_both_is_a_secret() -> None:
    outside = Outside.of(secrets={"BOTH": "hidden"}, variables={"BOTH": "plain"})

    assert outside == Outside({"BOTH": "hidden"}, frozenset({"BOTH"}))
