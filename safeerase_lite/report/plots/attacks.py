"""Charts of attacks on unlearned models."""

import altair as alt
import pandas as pd

from . import theme


def under_attack(rows: pd.DataFrame, *, measure: str = "ASR", strength: str = "strength"):
    """What an attack brings out of several models, a panel per variant.

    In three seconds: which models rise above gold as the attack grows.

    Args:
        rows: model, variant, strength, value, low and high (shares from 0 to 1); of one attack and
            one metric, see `robustness.summary`. Strengths are numbers, or words in their order.
        measure: what the values are.  strength: what the strengths are.
    """
    # Equal steps, whatever the strengths: they double, or are two.
    numbers = pd.api.types.is_numeric_dtype(rows["strength"])
    order = sorted(rows["strength"].unique()) if numbers else list(rows["strength"].unique())
    names = {s: f"{s:g}" if numbers else s for s in order}
    rows = rows.assign(strength=rows["strength"].map(names))
    models = list(rows["model"].unique())
    looks = [theme.GREY if "gold" in model else colour
             for model, colour in zip(models, _colours(models), strict=True)]  # fmt: skip
    base = alt.Chart(rows).encode(
        x=alt.X("strength:O", title=strength, sort=list(names.values()),
                axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("model:N", sort=models),
        color=theme.encode_by(alt.Color, "model", models, looks),
    )  # fmt: skip
    intervals = base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
    shapes = [theme.SEVEN_SHAPES[n % len(theme.SEVEN_SHAPES)] for n in range(len(models))]
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        y=theme.share_axis(alt.Y, "value", measure),
        shape=theme.encode_by(alt.Shape, "model", models, shapes),
        tooltip=["model", "variant", "strength", *theme.percents("value", "low", "high")],
    )
    variants = list(rows["variant"].unique())
    widest = rows.groupby("variant")["strength"].nunique().max()
    width = max(110, 11 * len(models) * widest)
    layers = alt.layer(intervals, points).properties(width=width, height=170)
    columns = max(1, min(len(variants), 900 // (width + 40)))
    chart = theme.panels(layers, "variant", variants, columns).resolve_scale(
        x="independent", xOffset="independent"
    )
    table = rows[["model", "variant", "strength", "value", "low", "high"]]
    strongest = rows.groupby(["model", "variant"], sort=False).tail(1)
    ends = theme.listed(strongest.assign(share=theme.with_intervals(strongest)),
                        "{model}, {variant} {strength}: {share}")  # fmt: skip
    return theme.styled(chart, f"{measure}, by {strength}; at the last: {ends}.", table)


def _colours(models: list[str]) -> list[str]:
    return [theme.SEVEN_COLOURS[n % len(theme.SEVEN_COLOURS)] for n in range(len(models))]
