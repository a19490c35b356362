"""One view, two readers: controls when somebody is there to move them, figures when nobody is."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from safeerase_lite.utils import UserError, is_interactive


def browse(
    view: Callable[..., None], figures: Sequence[dict[str, Any]] = (), **choices: Sequence
) -> None:
    """Let a reader choose what `view` shows; headless, show a few choices one below the other.

    Args:
        view: called with one value of each choice, by name; it displays its result.
        figures: what is shown headless: for each figure the choices that differ from the first of
            every list. By default one figure, of the first values. Interactive controls start
            at the first figure.
        choices: name → values to choose from; a `range` makes a slider, anything else a menu.

    Raises:
        UserError: a choice without values, one that `view` does not take, or a figure with an
            unknown choice or value.
    """
    for name, values in choices.items():
        if not len(values):
            raise UserError(f"browse: {name} has no values to choose from")
        if name not in inspect.signature(view).parameters:
            raise UserError(f"browse: {view.__name__} takes no {name!r}")
    for figure in figures:
        for name, value in figure.items():
            if value not in choices.get(name, ()):
                raise UserError(f"browse: a figure asks for {name}={value!r}, which is no choice")
    first = {name: values[0] for name, values in choices.items()}
    shown = [first | figure for figure in figures or [{}]]
    if is_interactive():
        _controls(view, choices, shown[0])
        return
    for figure in shown:
        view(**figure)


def _controls(
    view: Callable[..., None], choices: dict[str, Sequence], start: dict[str, Any]
) -> None:
    import ipywidgets as widgets
    from IPython.display import display

    wide = {"style": {"description_width": "7em"}, "layout": {"width": "32em"}}
    controls = {
        name: (widgets.SelectionSlider if isinstance(values, range) else widgets.Dropdown)(
            options=list(values), value=start[name], description=name.replace("_", " "), **wide
        )
        for name, values in choices.items()
    }
    display(widgets.VBox([*controls.values(), widgets.interactive_output(view, controls)]))
