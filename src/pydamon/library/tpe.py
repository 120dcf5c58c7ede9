"""Points of a space of many knobs that are likely to be worth a look: Optuna's tree of Parzen estimators."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from pydamon.analysis.search.space import Point
from pydamon.errors import MachineError

TRIALS, BATCH = 512, 32
Told = tuple[float, float, tuple[float, ...]]  # saved, cost, how far beyond each limit (above 0: beyond)


def explore(
    values: Sequence[Sequence[int]],
    choices: Sequence[bool],
    evaluate: Callable[[list[Point]], list[Told | None]],
    first: Sequence[Point],
    seed: int,
) -> None:
    """Have ``evaluate`` look at `TRIALS` points, a batch at a time, for much that is saved at little cost.

    ``values`` are those of each knob; a knob of ``choices`` has no order. ``first`` are looked at first. It tells
    None of a point that cannot be. The same seed looks at the same points. Raises MachineError without Optuna.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise MachineError("more than two knobs need Optuna: pip install 'pydamon[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=4 * BATCH)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        names = [f"knob{at}" for at in range(len(values))]
        for point in first:
            study.enqueue_trial(
                {name: mine.index(value) for name, mine, value in zip(names, values, point, strict=True)}
            )
        for _ in range(TRIALS // BATCH):
            asked = [study.ask() for _ in range(BATCH)]
            points = []
            for trial in asked:
                at = [
                    trial.suggest_categorical(name, range(len(mine)))
                    if unordered
                    else trial.suggest_int(name, 0, len(mine) - 1)
                    for name, mine, unordered in zip(names, values, choices, strict=True)
                ]
                points.append(tuple(mine[index] for mine, index in zip(values, at, strict=True)))
            for trial, told in zip(asked, evaluate(points), strict=True):
                if told is None:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                for number, beyond in enumerate(told[2]):
                    trial.set_constraint(f"limit{number}", beyond)
                study.tell(trial, told[:2])
