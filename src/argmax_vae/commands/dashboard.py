"""`argmax-vae sync --dashboard`: a project of wandb's as curves by estimator, bounds against cost, images and tables.

Runs are grouped by data, latents, estimator and protocol and ordered by their test bound; what is plotted is what the
tracker logs.
"""

import os
import sys
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from argmax_vae.errors import DONE, SOME_FAILED, UsageError
from argmax_vae.report.labels import FIGURES
from argmax_vae.report.records import TABLES
from argmax_vae.runs.trackers import TrackerConfig
from argmax_vae.runs.wandb_access import first_line, online_problem

GROUPED_BY = ("data.name", "model.latents", "estimator.name", "protocol")
"""What runs differ in that are not to be averaged with each other; those of a group differ in schedules and seeds."""


def curves() -> ws.Section:
    """Bounds and accuracies over epochs, averaged within each group, with the range of its runs."""
    titles = {
        "test_bound": "test bound (nats)",
        "validation_bound": "validation bound (nats)",
        "validation_kl": "KL (nats)",
        "test_accuracy": "test accuracy of the arg max",
        "test_codes_in_use": "values in use per latent",
    }
    panels: list[Any] = [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=[metric],
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            title_x="epoch",
        )
        for metric, title in titles.items()
    ]
    return ws.Section(name="Curves", panels=panels, is_open=True)


def cost() -> ws.Section:
    """Final test bounds against what they cost."""
    costs = {"final/seconds": "seconds of training", "final/steps": "steps"}
    panels: list[Any] = [
        wr.ScatterPlot(
            title=f"test bound against {title}", x=wr.SummaryMetric(name), y=wr.SummaryMetric("final/test_bound")
        )
        for name, title in costs.items()
    ]
    return ws.Section(name="Bound against cost", panels=panels, is_open=True)


def images() -> ws.Section:
    """Samples of the prior and reconstructions of every run."""
    panels: list[Any] = [wr.MediaBrowser(title=key, media_keys=[key]) for key in ("samples", "reconstructions")]
    return ws.Section(name="Images", panels=panels)


def tables() -> ws.Section:
    """The tables that `argmax-vae reproduce` published, and the seeds of every run."""
    panels: list[Any] = [wr.WeavePanelSummaryTable(table_name=name) for name in ("seeds", *TABLES, *FIGURES)]
    return ws.Section(name="Tables", panels=panels)


def workspace(entity: str, project: str) -> ws.Workspace:
    """The view: four sections over groups of runs, the best test bound first."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Estimators compared",
        sections=[curves(), cost(), images(), tables()],
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(name) for name in GROUPED_BY],
            order=[ws.Ordering(ws.Summary("final/test_bound"), ascending=True)],
        ),
    )


def save_dashboard(place: str, dry_run: bool) -> int:
    """Save the view in the project `ENTITY/PROJECT`, or only print its panels, without a login; the exit code.

    What `place` leaves out the environment has, WANDB_ENTITY and WANDB_PROJECT. Raises UsageError for no entity.
    """
    entity, _, project = place.partition("/")
    entity = entity or os.environ.get("WANDB_ENTITY", "")
    project = project or os.environ.get("WANDB_PROJECT") or TrackerConfig.project
    if "/" in project or not (entity or dry_run):
        raise UsageError(
            f"sync --dashboard={place} must be ENTITY or ENTITY/PROJECT, ENTITY a user or a team of wandb's"
        )
    view = workspace(entity or "entity", project)
    if dry_run:
        for section in view.sections:
            print(f"{section.name}: {len(section.panels)} panels")
        return DONE
    if problem := online_problem():
        print(f"argmax-vae: the dashboard is not saved: {problem}", file=sys.stderr)
        return SOME_FAILED
    try:
        view.save()
    except Exception as error:
        print(f"argmax-vae: the dashboard is not saved: {first_line(error)}", file=sys.stderr)
        return SOME_FAILED
    print(view.url)
    return DONE
