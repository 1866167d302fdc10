"""Whatever is written, a command either does what it says or refuses in one line, and never with a traceback."""

from __future__ import annotations

import hashlib
import json

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ipbench import methods
from ipbench.cli.main import main
from ipbench.data.formats import read_cifar, read_idx
from ipbench.errors import BadInput, BadProduct
from ipbench.packing.net import inspect
from ipbench.planning import plain_yaml
from ipbench.planning.axes import Axes
from ipbench.spec import NAME, Augmentation, Basis, Recipe, build
from tests.bad_input.refusing import check

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.sampled_from(
    [0, 1, 2, 3, -1, 0.5, 0.9, -0.0, 1.0, 1e-300, 1e300, 10**18, 10**30, 2**32, float("nan"), float("inf")]
)
WORDS = st.sampled_from(
    ["sp", "ip", "digits", "snip", "dense", "zero", "frozen", "erk", "strict", "off", "x", "", "../x", "$(x)"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
GOOD = {"datasets": "digits", "methods": ["dense", "snip"], "sparsities": [0.9], "seeds": 2}


def refused_or_done(words, capfd):
    """Exit code 0 with something on stdout, or a refusal."""
    capfd.readouterr()
    code = main(words)
    captured = capfd.readouterr()
    if code == 0:
        assert captured.err == "" and captured.out
    else:
        check(code, captured.out, captured.err, [])


@FEW
@given(changes=st.dictionaries(st.sampled_from([*Axes.model_fields, "name"]), VALUES, min_size=1, max_size=2))
@example(changes={"methods": [{"name": "snip", "off": float("nan")}]})
@example(changes={"name": "..", "title": "\x85"})
def test_any_value_of_any_key_of_an_experiment(changes, tmp_path, capfd):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}, allow_unicode=False))
    refused_or_done(["grid", str(path)], capfd)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.yaml"]


@FEW
@given(content=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
@example(content="&a [*a]")
@example(content="? {a: b}\n: c")
@example(content="2024-13-45")
def test_any_text_as_an_experiment(content, tmp_path, capfd):
    path = tmp_path / "x.yaml"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    refused_or_done(["grid", str(path)], capfd)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.yaml"]


@MANY
@given(name=st.text(max_size=70))
@example(name="a\n")
@example(name="٣")
def test_a_name_is_letters_digits_and_three_signs(name, tmp_path):
    """It becomes a folder and a word of commands."""
    from ipbench.planning.experiment import Experiment

    try:
        experiment = Experiment.from_config({**GOOD, "name": name}, "x")
    except BadInput as error:
        assert "\n" not in str(error)
        assert not NAME.fullmatch(name)
    else:
        assert experiment.name == name and name.isascii() and not set(name) & set("/\\ '\"$`;&|<>*?{}[]()~!#\n\0")
        assert (tmp_path / name).parent == tmp_path and name not in (".", "..")


@pytest.mark.parametrize("kind", [Recipe, Basis, Augmentation])
def test_any_value_of_any_key_of_a_mapping(kind):
    @MANY
    @given(values=st.dictionaries(st.sampled_from(list(kind.model_fields)), VALUES, min_size=1, max_size=3))
    def refused_or_built(values):
        try:
            built = build(kind, values, "here")
        except BadInput as error:
            assert str(error).startswith("here: ") or "in here" in str(error)
            assert "\n" not in str(error)
        else:
            json.dumps(built.model_dump(mode="json"), allow_nan=False)

    refused_or_built()


def test_any_value_of_any_option():
    known = methods.methods()
    names = sorted({option for entry in known.values() for option in entry.options})

    @MANY
    @given(
        st.sampled_from(list(known.values())), st.dictionaries(st.sampled_from(names), VALUES, min_size=1, max_size=2)
    )
    def refused_or_taken(entry, values):
        try:
            taken = entry.check_options(values, "here")
        except BadInput as error:
            assert "\n" not in str(error)
        else:
            assert all(type(value) is type(entry.options[name]) for name, value in taken.items())
            json.dumps(taken, allow_nan=False)

    refused_or_taken()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@MANY
@given(value=PLAIN)
@example(value="1e-1")
@example(value="off")
@example(value="0x10")
@example(value="2024-01-01")
@example(value="a\nb\x85\u2028")
def test_a_value_written_as_yaml_is_read_back(value):
    """What the workflow writes into a job's command is what the experiment said."""
    written = plain_yaml.write(value)
    assert "\n" not in written
    again = plain_yaml.read(written)
    assert again == value and repr(again) == repr(value)


HEADER = {"dataset": "digits", "model": "lenet-300-100", "run": "0" * 12, "seed": 0, "init": "kaiming_normal",
          "space": "sp", "values": "fp32", "layers": [[1, 2, 3]] * 3}  # fmt: skip


@FEW
@given(
    changes=st.dictionaries(st.sampled_from([*HEADER, "off", "basis", "faded"]), VALUES, max_size=2),
    body=st.binary(max_size=40),
)
def test_any_header_and_body_of_a_packed_net(changes, body, tmp_path):
    text = json.dumps({**HEADER, **changes}).encode()
    content = b"IPBPACK\0" + (1).to_bytes(2, "little") + len(text).to_bytes(4, "little") + text + body
    path = tmp_path / "net"
    path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(BadProduct) as error:
        inspect(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@MANY
@given(content=st.binary(max_size=80), header=st.sampled_from([b"", b"\0\0\x08\1", b"\0\0\x08\3\0\0\0\1"]))
def test_any_bytes_as_images(content, header, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(header + content)
    for read in (read_idx, lambda path: read_cifar(path, 1)):
        try:
            read(path)
        except BadProduct as error:
            assert str(path) in str(error) and "\n" not in str(error)
