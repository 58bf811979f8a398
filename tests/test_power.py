"""The power of the paired test: the closed form beside simulated experiments, and the verb's text and errors."""

import numpy as np
import pytest

from recontext_data.cli import main as recontext
from recontext_data.power import OPTIONS, main
from recontext_data.stats.intervals import paired_difference
from recontext_data.stats.power import Design, Noise, detectable, power
from recontext_data.stats.simulation import simulate

NUM_DRAWS = 600


@pytest.mark.parametrize(
    ("effect", "design"),
    [
        (0.1, Design(tasks=200, seeds=3)),
        (0.2, Design(tasks=200, seeds=3)),
        (0.15, Design(tasks=50, seeds=5)),
        (0.1, Design(tasks=200, seeds=5, alpha=0.01)),
        (0.05, Design(tasks=300, seeds=10)),
        (0.06, Design(tasks=100, seeds=5, answers=4)),
        (0.1, Design(tasks=200, seeds=10, noise=Noise(seed_sd=0.08))),
        (0.1, Design(tasks=200, seeds=1, noise=Noise(seed_sd=0.0))),
        (-0.1, Design(tasks=200, seeds=5)),
        (0.0, Design(tasks=200, seeds=5)),
    ],
)
def test_the_closed_form_agrees_with_simulated_experiments(effect: float, design: Design) -> None:
    pairs = zip(*simulate(0.4, effect, design, num_draws=NUM_DRAWS, seed=1), strict=True)
    found = [paired_difference(treatment, control) for treatment, control in pairs]
    seen = float(np.mean([difference.p < design.alpha for difference in found if difference is not None]))
    # .03 for the normal theory, and three standard errors of the simulation.
    assert power(0.4, effect, design) == pytest.approx(seen, abs=0.03 + 3 * np.sqrt(max(seen * (1 - seen), 0.01) / NUM_DRAWS))


def test_a_power_that_forgets_the_seeds_would_not_agree() -> None:
    """The test above can fail."""
    forgetful = power(0.4, 0.1, Design(tasks=200, seeds=3, noise=Noise(seed_sd=0.0)))
    assert forgetful > power(0.4, 0.1, Design(tasks=200, seeds=3, noise=Noise(seed_sd=0.06))) + 0.3


def test_power_grows_with_what_is_paid_for() -> None:
    few = power(0.4, 0.1, Design(tasks=100, seeds=3))
    assert few < power(0.4, 0.1, Design(tasks=200, seeds=3))
    assert few < power(0.4, 0.1, Design(tasks=100, seeds=5))
    assert few < power(0.4, 0.1, Design(tasks=100, seeds=3, answers=4))
    assert few < power(0.4, 0.2, Design(tasks=100, seeds=3))
    assert few > power(0.4, 0.1, Design(tasks=100, seeds=3, alpha=0.01))


def test_more_tasks_do_not_buy_what_only_seeds_can() -> None:
    assert power(0.4, 0.1, Design(tasks=10**9, seeds=3)) < 0.8 < power(0.4, 0.1, Design(tasks=300, seeds=10))


def test_the_detectable_effect_has_the_power_that_was_wanted() -> None:
    for design in (Design(tasks=200, seeds=3), Design(tasks=100, seeds=10), Design(tasks=100, seeds=1)):
        for wanted in (0.5, 0.8, 0.9):
            smallest = detectable(0.4, design, wanted=wanted)
            assert smallest is not None
            assert power(0.4, smallest, design) == pytest.approx(wanted, abs=0.005)


def test_too_few_to_see_anything_is_none() -> None:
    assert detectable(0.1, Design(tasks=20, seeds=2)) is None
    assert detectable(0.0, Design(tasks=200, seeds=10)) is None


def test_answers_without_noise_are_seen_at_once() -> None:
    certain = Design(tasks=50, seeds=3, noise=Noise(seed_sd=0.0, shared=1.0, arm=0.0, model=0.0))
    assert power(1.0, 1.0, certain) == 1.0
    assert power(1.0, 0.0, certain) == 0.0


def test_the_simulation_has_the_rates_and_the_shares_it_was_asked_for() -> None:
    shares = Noise(seed_sd=0.0, shared=0.2, arm=0.3, model=0.1)
    treatment, control = simulate(0.4, 0.2, Design(tasks=50, seeds=4, answers=2, noise=shares), num_draws=2000, seed=0)
    assert treatment.mean() == pytest.approx(0.2, abs=0.005)
    assert control.mean() == pytest.approx(0.4, abs=0.005)
    # Two seeds of one arm have in common what lies between tasks, for both arms or for one.
    assert np.mean((control[:, 0] - 0.4) * (control[:, 1] - 0.4)) == pytest.approx(0.24 * (0.2 + 0.3), abs=0.005)
    assert control.var() == pytest.approx(0.24 * (0.2 + 0.3 + 0.1 + 0.4 / 2), abs=0.005)
    _, same = simulate(0.4, 0.0, Design(tasks=50, seeds=4, noise=shares), num_draws=2000, seed=0)
    other, _ = simulate(0.4, 0.0, Design(tasks=50, seeds=4, noise=shares), num_draws=2000, seed=0)
    assert np.mean((same - 0.4) * (other - 0.4)) == pytest.approx(0.24 * 0.2, abs=0.005)


def test_the_simulation_varies_a_model_s_rate_from_seed_to_seed() -> None:
    unlike = Noise(seed_sd=0.1, shared=0.0, arm=0.0, model=0.0)
    _, control = simulate(0.4, 0.2, Design(tasks=50, seeds=4, noise=unlike), num_draws=4000, seed=0)
    assert control.mean() == pytest.approx(0.4, abs=0.005)
    assert np.mean((control[:, :, 0] - 0.4) * (control[:, :, 1] - 0.4)) == pytest.approx(0.1**2, abs=0.004)
    assert np.mean((control[:, 0] - 0.4) * (control[:, 1] - 0.4)) == pytest.approx(0.0, abs=0.002)
    with pytest.raises(ValueError, match=r"rates around 0\.05 cannot vary by 0\.3; write less than 0\.218"):
        simulate(0.05, 0.0, Design(tasks=5, seeds=2, noise=Noise(seed_sd=0.3)), num_draws=1, seed=0)


def test_the_verb_says_what_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["base=.4", "effect=.1", "tasks=200", "seeds=3"]) == 0
    shown = capsys.readouterr().out
    chance = round(100 * power(0.4, 0.1, Design(tasks=200, seeds=3)))
    smallest = detectable(0.4, Design(tasks=200, seeds=3))
    assert smallest is not None
    assert f"40 % -> 30 %: seen with a probability of {chance} %" in shown
    assert f"smallest decrease of 40 % seen with 80 %: {100 * smallest:.1f} points" in shown
    rows = {line.split()[0] for line in shown.splitlines() if line[:8].strip().isdigit()}
    assert rows >= {"1", "3", "5", "10"}
    assert "one seed: says nothing about retraining" in shown
    assert "assumed: a model's rate varies by 3 points" in shown
    assert all(len(line) <= 128 for line in shown.splitlines())


def test_without_an_effect_it_says_the_smallest(capsys: pytest.CaptureFixture[str]) -> None:
    assert recontext(["power", "base=.05", "tasks=50", "seeds=3"]) == 0
    shown = capsys.readouterr().out
    assert "too few seeds or tasks: not even 5 % -> 0 % is seen with 80 %" in shown
    assert "probability" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("base=1.4 tasks=200 seeds=3", "base must lie in 0..1, a rate such as 0.4; got 1.4"),
        ("base=.4 effect=.5 tasks=200 seeds=3", "effect: 0.5 takes the base 0.4 to -0.1, outside 0..1; write at most 0.4"),
        ("base=.4 effect=-.7 tasks=200 seeds=3", "outside 0..1"),
        ("base=.4 tasks=1 seeds=3", "tasks must lie in 2..1000000000; got 1"),
        ("base=.4 tasks=1e30 seeds=3", "tasks=1e30: must be an integer"),
        ("base=.4 tasks=200 seeds=0", "seeds must lie in 1.."),
        ("base=.4 tasks=200 seeds=3 answers=0", "answers must lie in 1.."),
        ("base=.4 tasks=2.5 seeds=3", "tasks=2.5: must be an integer"),
        ("base=forty tasks=200 seeds=3", "base=forty: must be a number"),
        ("base=nan tasks=200 seeds=3", "base=nan: must be a number"),
        ("base=.4 task=200 seeds=3", "task: unknown key; did you mean 'tasks'?"),
        ("base=.4 seeds=3", "tasks: missing; write tasks=..."),
        ("base=.4 base=.5 tasks=200 seeds=3", "base: given twice"),
        ("base=.4 tasks=200 seeds=3 alpha=0", "alpha must lie in"),
        ("base=.4 tasks=200 seeds=3 seed_sd=3", "seed_sd must lie in 0..0.5"),
        ("base=.4 tasks=200 seeds=3 arm=.5 shared=.5", "shared + arm + model must not exceed 1"),
        ("base=.4 tasks=200 seeds=3 arm=-1", "arm must lie in 0..1"),
        ("code_mc", "'code_mc' is not an option; write key=value"),
    ],
)
def test_bad_input_is_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert message in shown.err


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{option}: " in shown for option in OPTIONS.model_fields)
