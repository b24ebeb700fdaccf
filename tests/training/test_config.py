"""Settings: strict keys, typed values, and a file beside the run that gives the same settings again."""

from pathlib import Path

import pytest

from training.config import ConfigError, TrainConfig, load_config, save_config
from training.schedule import learning_rate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text("name: x\nsteps: 5\nweight_decay: 1e-2\n")
    return file


def test_overrides_take_the_type_of_their_setting(path: Path) -> None:
    overrides = ["steps=7", "learning_rate=1e-3", "characters=0123", "compile=true", "name=a=b", "clip_norm=2"]
    config = load_config(path, overrides)
    assert (config.steps, config.learning_rate, config.characters) == (7, 1e-3, "0123")
    assert (config.compile, config.name, config.clip_norm, config.weight_decay) == (True, "a=b", 2.0, 0.01)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=7", "unknown setting 'stepz'"),
        ("steps=many", "not a whole number"),
        ("steps=1.5", "not a whole number"),
        ("learning_rate=fast", "not a number"),
        ("compile=yes", "not true or false"),
        ("steps", "holds no value"),
        ("precision=fp8", "precision: 'fp8' is not one of"),
        ("schedule=linear", "schedule"),
        ("real_share=1.5", "real_share: 1.5 is not between 0 and 1"),
        ("batch_size=0", "batch_size: 0"),
        ("ema_decay=1.0", "ema_decay"),
        ("qat=true", "set precision=fp32"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path, [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nstepz: 5\n", "unknown setting 'stepz'"),
        ("name: x\nsteps: '5'\n", "not a whole number"),
        ("name: x\nsteps: true\n", "not a whole number"),
        ("name: x\ncompile: 1\n", "not true or false"),
        ("name: x\nclip_norm: hard\n", "not a number"),
        ("steps: 5\n", "no name"),
        ("- a\n", "not a mapping"),
        ("name: [\n", "c.yaml"),
    ],
)
def test_bad_files_are_refused_in_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_shipped_settings_load() -> None:
    shipped = list((ROOT / "training" / "configs").glob("*.yaml"))
    assert {load_config(file).spec.network.backbone for file in shipped} == {"edge", "r31", "small"}


def test_settings_of_a_run_give_the_same_run_again(path: Path, tmp_path: Path) -> None:
    config = load_config(path, ["characters=abc: #'\"é", "learning_rate=3e-5"])
    save_config(config, tmp_path / "saved.yaml", ["train.py", "--set", "a b"])
    assert load_config(tmp_path / "saved.yaml") == config
    assert (tmp_path / "saved.yaml").read_text(encoding="utf-8").startswith("# train.py --set 'a b'\n")


def rates(schedule: str, *steps: int) -> list[float]:
    config = TrainConfig("x", schedule=schedule, steps=100, warmup_steps=10, learning_rate=1.0)
    return [learning_rate(config, step) for step in steps]


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    assert rates("cosine", 0, 4, 9, 10, 55, 100, 120) == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.505, 0.01, 0.01])


def test_the_papers_rate_falls_in_steps() -> None:
    assert rates("steps", 0, 10, 59, 60, 79, 80, 99) == pytest.approx([0.1, 1, 1, 0.1, 0.1, 0.01, 0.01])
