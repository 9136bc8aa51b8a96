"""The paper's own numbers, as effects."""

from collections.abc import Iterator

import pandas as pd

from sdnet.commands.evidence.attacks import ATTACK_PAIRS
from sdnet.commands.evidence.clean import CLEAN_PAIRS
from sdnet.commands.evidence.noise import NOISE_PAIRS, variance_fit
from sdnet.commands.evidence.runs import KEYS, SEVERITY, Row, kendall, spearman
from sdnet.experiments.claims.claim import COSTS
from sdnet.experiments.tables.layout import paper_values


def paper_effects(values: pd.DataFrame | None = None) -> pd.DataFrame:
    """The effects in the paper's tables: `KEYS` and `paper`.

    Args:
        values: as in config/paper_values.csv, which is the default.
    """
    values = paper_values() if values is None else values
    values = values.fillna({"setting": "", "condition": "", "severity": ""})
    names = (values.system + " " + values.setting).str.strip()
    values = values.assign(subject=names, level=values.severity.astype(str).str.removesuffix(".0"))
    attacked = values.table == "table4"
    values.loc[attacked, "condition"] = values.condition.str.split().str[0]
    values.loc[attacked, ["level", "quantity"]] = ["paper", "robust"]
    values.loc[values.condition == "clean", "level"] = ""
    values = values.drop_duplicates(["dataset", "quantity", "subject", "condition", "level"])
    rows = [
        *_paper_pairs(values[values.condition == "clean"], CLEAN_PAIRS),
        *_paper_pairs(values[values.level.isin([*SEVERITY, "mean"])], NOISE_PAIRS),
        *_paper_pairs(values[values.quantity == "robust"], ATTACK_PAIRS),
        *_paper_orders(values),
    ]
    absolute = values[~values.quantity.isin(COSTS)].assign(over="", paper=values.value)
    return pd.concat([absolute[[*KEYS, "paper"]], pd.DataFrame(rows)], ignore_index=True)


def _paper_pairs(values: pd.DataFrame, pairs: list[tuple[str, str]]) -> Iterator[Row]:
    """Differences of accuracies, and ratios of what networks cost."""
    keys = ["dataset", "quantity", "condition", "level"]
    by_subject = {name: group.set_index(keys).value for name, group in values.groupby("subject")}
    for subject, over in pairs:
        if subject not in by_subject or over not in by_subject:
            continue
        both = pd.concat([by_subject[subject], by_subject[over]], axis=1, join="inner", keys=["first", "second"])
        for (dataset, quantity, condition, level), first, second in both.itertuples():
            if quantity == "lambda":
                continue
            ratio = quantity in COSTS
            yield {
                "dataset": dataset,
                "quantity": quantity,
                "subject": subject,
                "over": over,
                "condition": "" if ratio else condition,
                "level": level,
                "paper": first / second if ratio else first - second,
            }


def _paper_orders(values: pd.DataFrame) -> Iterator[Row]:
    """What rises with the severity in Table 2."""
    table = values[(values.table == "table2") & values.subject.isin(["sdnet18 adaptive", "sdnet18 fixed"])]
    wide = table.pivot(index="level", columns=["quantity", "subject"], values="value").loc[SEVERITY]
    gain = wide["accuracy", "sdnet18 adaptive"] - wide["accuracy", "sdnet18 fixed"]
    lambdas = wide["lambda", "sdnet18 adaptive"]
    common = {"dataset": "cifar10", "condition": "gaussian", "level": ""}
    order = common | {"over": "severity"}
    yield order | {"quantity": "spearman", "subject": "sdnet18 adaptive gain", "paper": spearman(gain)}
    yield order | {"quantity": "kendall", "subject": "sdnet18 adaptive lambda", "paper": kendall(lambdas)}
    fit = {"quantity": "r_squared", "subject": "sdnet18 adaptive lambda", "over": "noise variance"}
    yield common | fit | {"paper": variance_fit(lambdas, "cifar")}
