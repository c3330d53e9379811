# SPDX-License-Identifier: Apache-2.0
"""cgroup_forms.py: each form matches its own example, and no earlier form takes the example's place."""

import pytest

from tracer.identity.cgroup_forms import FORMS, Form, split_path
from tracer.identity.cgroup_path import classify_cgroup, parse_cgroup_path


def _title(form: Form) -> str:
    return f"{form.kind}-{form.runtime or 'any'}-{FORMS.index(form)}"


@pytest.mark.parametrize("form", FORMS, ids=_title)
def test_example(form: Form) -> None:
    """Every component of the example is matched, one of them by this form, with the groups that its kind has."""
    components = list(split_path(form.example))
    component = next(each for each in components if each.form is form)
    assert sum(len(each.name) + 1 for each in components) == len(form.example)
    shape = {"container": (1, 2), "kubepods": (2,), "pod": (2,), "group": (0,), "other": (0,)}
    assert len(component.groups) in shape[form.kind]


@pytest.mark.parametrize("form", [form for form in FORMS if form.kind == "container"], ids=_title)
def test_container(form: Form) -> None:
    """The id and the name are on the path, and the runtime is the form's."""
    container = parse_cgroup_path(form.example).container
    assert container is not None
    assert container["runtime"] == form.runtime
    assert container["id"].isprintable()
    assert container["id"].encode("unicode_escape").decode() in form.example
    assert container["name"] is None or container["name"] in form.example


@pytest.mark.parametrize("form", [form for form in FORMS if form.kind not in ("container", "other")], ids=_title)
def test_level(form: Form) -> None:
    """A form that is no container's is not classified as one."""
    names: list[str] = []
    for component in split_path(form.example):
        names.append(component.name)
        if component.form is form:
            break
    assert classify_cgroup("/" + "/".join(names)) in ("pod", "qos", "slice")
